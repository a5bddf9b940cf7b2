"""`export_network`: a trained model's network as a file of another format, checked before it is there."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from llm4seg.export.description import describe_export
from llm4seg.export.formats import FORMATS
from llm4seg.inference.resample import LINEAR
from llm4seg.objectives.losses import labels_from_logits
from llm4seg.predict.model import Image, SegmentationModel
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import replacing, write_json

TOLERANCE = 1e-4  # of a logit, absolute and as a share of it
CASES = 3  # synthetic images of the check


@dataclass(frozen=True)
class Export:
    """What was written: the file, its description, and by how much its logits differ from the model's at most."""

    file: Path
    about: dict[str, Any]
    difference: float
    checked_on: str


def export_network(model: SegmentationModel, form: str, file: Path, image: Image | None = None) -> Export:
    """Write the network as `form` (onnx, pt2), with its description inside, and beside it as JSON.

    Before it appears, the file is run on synthetic images, of which logits must agree to 1e-4 and labels be equal; and
    on `image`, if there is one, whose whole mask must be equal. Raises InputError where they do not, for an ensemble,
    and with the exporter's reason for what it cannot do.
    """
    write, read = FORMATS[form]
    network = model.module.requires_grad_(False)
    about = describe_export(model.folders[0])
    shape = about["input"]["shape"][1:]
    with replacing(file) as partial:
        write(network, shape, about, partial)
        exported = read(partial)
        difference = _check_logits(network, exported, shape, model)
        if image is not None:
            _check_mask(model, exported, image)
        _refuse_second_file(partial, file)
    write_json(file.with_suffix(".json"), about)
    return Export(file, about, difference, "a synthetic case" if image is None else str(image))


def _refuse_second_file(partial: Path, file: Path) -> None:
    """Raise InputError where ONNX wrote weights into a second file, whose name the first one holds."""
    beside = partial.with_name(f"{partial.name}.data")
    if beside.exists():
        beside.unlink()
        raise InputError(f"{file}: the model has more than 2 GB, which ONNX cannot hold in a file; allowed: --to pt2")


@torch.no_grad()
def _check_logits(network: nn.Module, exported: nn.Module, shape: Sequence[int], model: SegmentationModel) -> float:
    """The largest difference of logits of synthetic images, one at a time and together."""
    images_NCS, largest = synthetic_images(shape), 0.0
    for part_NCS in (images_NCS, images_NCS[:1]):
        wanted, found = network(part_NCS).float(), exported(part_NCS)
        largest = max(largest, float((wanted - found).abs().max()))
        if not torch.allclose(found, wanted, rtol=TOLERANCE, atol=TOLERANCE):
            raise InputError(
                f"the exported network differs from the model: found logits {largest:.2g} apart, allowed: {TOLERANCE}"
            )
        scheme = model.predictor.scheme
        _check_labels(labels_from_logits(wanted, scheme).numpy(), labels_from_logits(found, scheme).numpy(), "them")
    return largest


def _check_mask(model: SegmentationModel, exported: nn.Module, image: Image) -> None:
    """Compare the whole way from an image to its mask."""
    wanted, own = model.predict(image), model.predictor
    model.predictor = copy(own)
    model.predictor.networks = (exported,)
    try:
        found = model.predict(image)
    finally:
        model.predictor = own
    _check_labels(wanted, found, str(image))


def _check_labels(wanted: np.ndarray, found: np.ndarray, what: str) -> None:
    # two classes may be equally probable in a pixel to the last digit: one in 100,000 may fall the other way
    if (differing := int((wanted != found).sum())) > wanted.size // 100_000:
        raise InputError(
            f"the exported network differs from the model: found {differing} of {wanted.size} labels of {what} "
            "otherwise, allowed: none"
        )


def synthetic_images(shape: Sequence[int]) -> Tensor:
    """Images (N, C, *size) with structure from coarse to fine, about as a normalized image: mean 0, deviation 1."""
    channels, *size = shape
    generator = torch.Generator().manual_seed(0)
    images_NCS = torch.zeros(CASES, channels, *size)
    for divisor in (16, 4, 1):
        coarse = [max(1, side // divisor) for side in size]
        noise_NCS = torch.randn(CASES, channels, *coarse, generator=generator)
        images_NCS += functional.interpolate(noise_NCS, tuple(size), mode=LINEAR[len(size)], align_corners=False)
    return (images_NCS - images_NCS.mean()) / images_NCS.std()
