"""`load` and `SegmentationModel`: a trained model, or an ensemble of several, that segments images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from llm4seg.data.label_scheme import LabelScheme
from llm4seg.data.prepared import Unit
from llm4seg.data.preprocessing import Preprocessing
from llm4seg.datasets.image_data import ImageData
from llm4seg.inference.grid_logits import GridLogits, NetworkInput, has_softmax
from llm4seg.inference.mirroring import Mirroring
from llm4seg.inference.postprocess import Step, parse_steps
from llm4seg.inference.postprocess import postprocess as apply_steps
from llm4seg.inference.predictor import Predictor
from llm4seg.models.hybrid import Hybrid
from llm4seg.models.saved import DESCRIPTION, load_trained, read_data, read_metadata, trained_augment
from llm4seg.objectives.losses import out_channels
from llm4seg.predict.addresses import model_folder
from llm4seg.predict.input_image import InputImage, from_array, from_files, from_image_data
from llm4seg.predict.llm_layers import layer_store
from llm4seg.predict.network_input import read_image, read_slices
from llm4seg.predict.options import checked_mirroring
from llm4seg.runtime.device import device_that_fits
from llm4seg.runtime.seeding import set_deterministic
from llm4seg.utils.errors import InputError

Source = str | Path
Image = Source | Sequence[Source] | np.ndarray | Tensor
DTYPES = ("float32", "bfloat16")
BATCH = {"cpu": 1, "cuda": 16}  # slices that pass a network together


@dataclass(frozen=True)
class Segmentation:
    """A mask with all that it takes to write it to a file.

    `labels`: uint8 in the order of the image's file (see `SegmentationModel.predict`); `affine`: (4, 4), from its
    indices to right, anterior, superior in mm, None for an array; `spacing`: along its axes, in `unit`.
    """

    source: str
    labels: np.ndarray
    affine: np.ndarray | None
    spacing: tuple[float, ...]
    unit: Unit
    notices: tuple[str, ...]


class SegmentationModel:
    """A trained model or an ensemble of several, of which probabilities are averaged.

    `classes`: their names; `labels`: of each class, the values that it has in masks: one, of regions those that they
    cover. `modules`: the networks, in evaluation mode. `preprocessing`: how each reads an image.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        networks: Sequence[Hybrid],
        overlap: float,
        batch: int | None,
        tta: Mirroring | None = None,
        steps: Sequence[Step] = (),
    ) -> None:
        self.folders, self.modules = tuple(folders), tuple(networks)
        self.preprocessing, scheme = _described(self.folders)
        self.classes = tuple(name or f"class {place}" for place, name in enumerate(scheme.classes, start=1))
        self.labels = {name: scheme.covered(place) for place, name in enumerate(self.classes)}
        self._trained = f"the model in {folders[0]}"
        self._channels = _channels_of(folders[0], scheme)
        batch = batch or BATCH.get(next(networks[0].parameters()).device.type, 1)
        self.steps = tuple(steps)
        self.predictor = Predictor(self.modules, scheme, overlap, batch, tta)

    @property
    def module(self) -> nn.Module:
        """The network, from normalized images (N, C, *size) to logits (N, K, *size). Raises InputError of ensembles."""
        if len(self.modules) > 1:
            raise InputError(f"module: found an ensemble of {len(self.modules)}, allowed: one model; see `modules`")
        return self.modules[0]

    def predict(self, image: Image, spacing: Sequence[float] | None = None) -> np.ndarray:
        """The mask of an image: uint8, with values as in `labels`, 0 for background.

        `image`: a file in any format that `folder` data sets read (NIfTI, NRRD, MetaImage, DICOM, PNG, JPG, TIFF), a
        folder with the files of a DICOM series, or a list of files with the channels of one image; or an array or
        tensor ([C,] rows, columns[, slices]), axes as the model was trained on (see docs/datasets.md). A 2-D model
        takes a volume slice by slice. `spacing`: mm along rows, columns and slices of arrays and pictures, which
        models need that read volumes at a spacing.

        The mask has the axes of the file: of NIfTI, those of nibabel's `get_fdata()`; of NRRD, MetaImage and DICOM x, y
        and z, the transpose of SimpleITK's `GetArrayFromImage`; of pictures rows, columns and pages; of an array, its
        own. Raises InputError, with one line, for an image that the model cannot read.
        """
        return self.segment(image, spacing).labels

    def segment(self, image: Image, spacing: Sequence[float] | None = None) -> Segmentation:
        """As `predict`, with the geometry of the image's file, and notices."""
        one = self.read(image, spacing)
        return segmentation(one, self.predict_labels(one))

    def predict_labels(self, one: InputImage) -> np.ndarray:
        """Of an image that `read` gave, the labels uint8 in the order of its array, post-processed."""
        if self._in_slices(one):
            labels_S = self.predictor.slice_labels(read_slices(one, self.preprocessing), one.shape)
        else:
            labels_S = self.predictor.labels(self.inputs(one))
        return self.cleaned(labels_S).numpy()

    def inputs_of_one(self, one: InputImage) -> list[NetworkInput] | None:
        """An image as each network reads it, where that is one image at a size of the network's own; else None.

        `predict_labels` is then this, `logits` and `labels_of`, each of which may run in a thread of its own.
        """
        if self._in_slices(one):
            return next(read_slices(one, self.preprocessing)) if one.shape[-1] == 1 else None
        return self.inputs(one) if all(model.spacing is None for model in self.preprocessing) else None

    def inputs(self, one: InputImage) -> list[NetworkInput]:
        """An image, not one of slices, as each network reads it."""
        return read_image(one, self.preprocessing, self._trained)

    def logits(self, read: Sequence[NetworkInput]) -> list[GridLogits]:
        """Each network's logits of one image, on the network's device."""
        return self.predictor.logits(read)

    def labels_of(self, logits: Sequence[GridLogits], shape: Sequence[int]) -> np.ndarray:
        """As `predict_labels` of an image of `shape`, from what `logits` gave."""
        return self.cleaned(self.predictor.labels_of(logits).reshape(tuple(shape))).numpy()

    def cleaned(self, labels_S: Tensor) -> Tensor:
        """Labels in the order of the image's array after `postprocess`: of volumes in 3-D, also by a 2-D model."""
        assert self.predictor.scheme is not None
        return apply_steps(labels_S, self.steps, self.predictor.scheme)

    def predict_probabilities(self, image: Image, spacing: Sequence[float] | None = None) -> np.ndarray:
        """Each class's probability, float32 (len(classes), *shape), 0 to 1, with axes as in `predict`.

        Of classes the rest to 1 is background's. All classes are in memory; `probabilities` has one at a time.
        """
        return np.stack([*self.probabilities(self.read(image, spacing))])

    def probabilities(self, one: InputImage) -> Iterator[np.ndarray]:
        """Of an image that `read` gave, each class's probability in turn, as in `predict_probabilities`."""
        if self._in_slices(one):
            slices = read_slices(one, self.preprocessing)
            channels = self.predictor.slice_probabilities(slices, one.shape, self._channels)
        else:
            channels = self.predictor.probabilities(self.inputs(one))
        if has_softmax(self._channels, self.predictor.scheme):
            next(channels)  # background's
        for values_S in channels:
            yield one.to_file(values_S.numpy())

    def read(self, image: Image, spacing: Sequence[float] | None = None) -> InputImage:
        """An image as the model's arrays lie. Raises InputError naming what is wrong with it."""
        model = self.preprocessing[0]
        if isinstance(image, np.ndarray | Tensor):
            return from_array(image, model, spacing, self._trained)
        listed = image if isinstance(image, list | tuple) else [image]
        paths = [Path(path) for path in listed if isinstance(path, str | Path)]
        if not paths or len(paths) < len(listed):
            raise InputError(f"image: found {type(image).__name__}, allowed: paths of files, an array or a tensor")
        return from_files(paths, model, spacing, self._trained)

    def read_image_data(self, image: ImageData, source: str, spacing: Sequence[float] | None = None) -> InputImage:
        """As `read`, of what a reader of files gave; `source`: its name in messages."""
        return from_image_data(image, source, self.preprocessing[0], spacing, self._trained)

    def _in_slices(self, one: InputImage) -> bool:
        return len(one.shape) > self.preprocessing[0].spatial_dims


def segmentation(one: InputImage, labels_S: np.ndarray) -> Segmentation:
    """Labels in the order of the image's array, as a mask in the order of its file."""
    labels, way = one.to_file(labels_S), one.geometry
    if way is None:
        spacing = one.spacing or (1.0,) * labels.ndim
        return Segmentation(one.source, labels, None, spacing, "px" if one.spacing is None else "mm", one.notices)
    affine = np.array(way.affine)
    sizes = tuple(float(size) for size in np.linalg.norm(affine[:3, : labels.ndim], axis=0))
    return Segmentation(one.source, labels, affine, sizes, "px" if one.spacing is None else "mm", one.notices)


def load(
    model: Source | Sequence[Source],
    *,
    llm: Source | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    overlap: float = 0.5,
    batch: int | None = None,
    tta: Sequence[int] = (),
    postprocess: Sequence[str] = (),
) -> SegmentationModel:
    """Load a trained model: the folder that `train` writes, with model.json and weights; or several, as an ensemble.

    A folder may be an address: hf://ORG/NAME@REVISION, s3://BUCKET/FOLDER (see `predict.addresses`); it is fetched
    once, into the cache that has the LLM's layers, too.

    The LLM's layers that model.json names are fetched from their source and kept in LLM4SEG_HOME or ~/.cache/llm4seg;
    `llm` names another place: a layer store, a file or folder, or an address as in `llm.source`. `device`: None: a GPU
    where there is one with room; `dtype`: float32, or bfloat16 for less memory and other rounding. `overlap`: of the
    windows over a volume, as a share; `batch`: slices of a volume at a time (None: by the device). `tta`: axes of
    the network's images (0 rows, 1 columns, 2 slices) to mirror along; `postprocess`: steps as in
    `evaluation.postprocess`: "largest:CLASS", "min:PIXELS", "min:PIXELS:CLASS".

    Raises InputError, with one line, for a folder that is no model, and for models that do not go together.
    """
    folders = [model_folder(one) for one in ([model] if isinstance(model, str | Path) else model)]
    if not folders:
        raise InputError("model: found none, allowed: one folder or more")
    wanted = str(dtype or DTYPES[0]).removeprefix("torch.")
    if wanted not in DTYPES:
        raise InputError(f"dtype: found {wanted}, allowed: {' or '.join(DTYPES)}")
    if not 0 <= overlap < 1:
        raise InputError(f"overlap: found {overlap}, allowed: 0 to below 1")
    models, scheme = _described(folders)  # before anything is fetched
    steps = parse_steps(postprocess, scheme, "postprocess")
    augmented = [one for one in map(trained_augment, folders) if one is not None] if tta else ()
    mirrored = checked_mirroring(tta, models[0], scheme, augmented)
    place = _device(device)
    set_deterministic(place)
    networks = []
    for folder in folders:
        network = load_trained(folder, layer_store(folder, None if llm is None else str(llm)))
        network.mixed_precision = wanted == "bfloat16"
        networks.append(network.to(device_that_fits(network, place) if device is None else place))
    return SegmentationModel(folders, networks, overlap, batch, mirrored, steps)


def _device(wanted: str | torch.device | None) -> torch.device:
    if wanted is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(wanted)
    except (RuntimeError, TypeError):
        raise InputError(f"device: found {wanted!r}, allowed: cpu, cuda or cuda:N") from None
    if place.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device: found {wanted}, allowed here: cpu, since torch finds no GPU")
    return place


def _described(folders: Sequence[Path]) -> tuple[list[Preprocessing], LabelScheme]:
    """How each model reads an image, and what their labels mean. Raises InputError where they do not go together."""
    described = []
    for folder in folders:
        if not (folder / DESCRIPTION).is_file():
            raise InputError(f"{folder}: found no {DESCRIPTION}, allowed: the folder of a trained model")
        described.append(read_data(folder))
        model, _ = described[-1]
        if model.spacing is None and not (model.size and model.intensity):
            raise InputError(
                f"{folder / DESCRIPTION}: found data.size: {model.size} and data.intensity: {model.intensity}, which a "
                "checkpoint does not record; allowed: what its images were resized to and normalized by: convert it "
                "again with --size and --intensity (python -m llm4seg.released.convert)"
            )
    first, *others = [
        {**_common(*one), "channels of logits": _channels_of(folder, one[1])}
        for folder, one in zip(folders, described, strict=True)
    ]
    for folder, other in zip(folders[1:], others, strict=True):
        for name, value in other.items():
            if value != first[name]:
                raise InputError(
                    f"{folder}: found {name} {value}, allowed: {first[name]}, as of the model in {folders[0]}"
                )
    return [model for model, _ in described], described[0][1]


def _channels_of(folder: Path, scheme: LabelScheme) -> int:
    """The channels of a network's logits: of one class they depend on the loss."""
    return out_channels(read_metadata(folder)[0]["config"]["training"]["loss"], scheme)


def _common(model: Preprocessing, scheme: LabelScheme) -> dict[str, Any]:
    """What models must have in common whose probabilities are averaged."""
    return {
        "spatial dimensions": model.spatial_dims,
        "channels": model.channels,
        "classes": ", ".join(map(str, scheme.classes)),
        "regions": scheme.regions,
        "regions_class_order": scheme.regions_class_order,
        "view": model.view,
        "cropped": model.cropped,
    }
