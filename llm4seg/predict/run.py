"""Case after case: read ahead, predicted, and written, with a record of what is finished."""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from tqdm import tqdm

from llm4seg.datasets.image_io import read_header
from llm4seg.inference.grid_logits import GridLogits, NetworkInput
from llm4seg.predict.cases import InputCase
from llm4seg.predict.dicom_seg import write_dicom_seg
from llm4seg.predict.dicom_series import read_series
from llm4seg.predict.input_image import InputImage
from llm4seg.predict.mask_files import mask_ending, write_mask, write_probabilities
from llm4seg.predict.model import SegmentationModel
from llm4seg.predict.overlay import draw_prediction
from llm4seg.predict.records import Record, case_digest, delete_outputs, forget, model_digest, volume_rows, write_table
from llm4seg.runtime.device import MEMORY_FRACTION, free_bytes
from llm4seg.utils.errors import InputError, UserError
from llm4seg.utils.files import remove
from llm4seg.utils.logs import bars_off

OVERLAYS, PROBABILITIES = "overlays", "probabilities"  # folders beside the masks
COPIES, FLOAT32 = 8, 4  # of an image, the most that reading, resampling and writing it take at a time; bytes
SMALL = 2**20  # bytes of files, or pixels, for which there is room
FEW = 2**22  # logits at an image's resolution that may be made beside the next case's network, 16 MB
One = TypeVar("One")
Other = TypeVar("Other")


@dataclass(frozen=True)
class Options:
    """What is written of each case: a mask in `format`, of `mask_files.ENDINGS` (None: the image's own), and more.

    `spacing`: in mm along the axes of pictures.
    `decisive`: what else decides a mask, as `load` was given it, for the records of finished cases.
    """

    format: str | None = None
    overlay: bool = False
    probabilities: bool = False
    spacing: tuple[float, ...] | None = None
    decisive: tuple[tuple[str, str], ...] = ()


@dataclass
class Progress:
    """A case on its way. `finished`: it was before; `error`: why it cannot be predicted, in one line.

    `inputs` and `logits` are between the threads: see `SegmentationModel.inputs_of_one`; logits where they are few.
    """

    case: InputCase
    digest: str = ""
    finished: bool = False
    image: InputImage | None = None
    inputs: list[NetworkInput] | None = None
    logits: list[GridLogits] | None = None
    labels: np.ndarray | None = None
    outputs: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    error: str | None = None


class CaseWriter:
    """Writes masks of cases into a folder, and what else is wanted (see `predict_cases`)."""

    def __init__(self, model: SegmentationModel, out: Path, options: Options) -> None:
        self.model, self.out, self.options = model, out, options
        self._decided = model_digest(model.folders, asdict(options))

    def read(self, case: InputCase) -> Progress:
        """The image of a case, unless that is finished, and, where it is resized, the networks' inputs."""
        one = Progress(case)
        with _failing(one):
            one.digest = case_digest(case.files, self._decided)
            record = Record.read(self.out, case.id)
            one.finished = record is not None and record.is_of(one.digest, self.out)
            if not one.finished and case.dicom:
                image = read_series(case.files, case.source)
                one.image = self.model.read_image_data(image, case.source, self.options.spacing)
            elif not one.finished:
                one.image = self.model.read(list(case.files), self.options.spacing)
            if one.image is not None:
                one.inputs = self.model.inputs_of_one(one.image)
        return one

    def predict(self, one: Progress) -> Progress:
        """The logits or labels, and the files of probabilities, of which one class at a time is in memory."""
        if one.image is not None and one.error is None:
            with _failing(one):
                self._predict(one, one.image)
                forget(self.out, one.case.id)
                if self.options.probabilities:
                    self._write_probabilities(one, one.image)
        return one

    def _predict(self, one: Progress, image: InputImage) -> None:
        """The logits alone where they are few at the image's resolution: labels are then made beside the next case."""
        if one.inputs is None:
            one.labels = self.model.predict_labels(image)
            return
        logits, one.inputs = self.model.logits(one.inputs), None
        if logits[0].channels * math.prod(image.shape) < FEW:
            one.logits = logits
        else:
            one.labels = self.model.labels_of(logits, image.shape)

    def write(self, one: Progress) -> Progress:
        """The mask, the overlay and the record; the images are let go."""
        predicted = one.labels is not None or one.logits is not None
        if one.image is not None and predicted and one.error is None:
            with _failing(one):
                if one.logits is not None:
                    one.labels = self.model.labels_of(one.logits, one.image.shape)
                assert one.labels is not None
                self._write(one, one.image, one.labels)
                one.notices = one.image.notices
        if one.error is not None:
            with suppress(OSError):  # what is there is of another image or model
                delete_outputs(self.out, one.case.id)
                if predicted:  # some files may be written, and none has a record
                    for name in (*one.outputs, mask_name(one.case, self.options)):
                        remove(self.out / name)
        return replace(one, image=None, inputs=None, logits=None, labels=None)

    def _write_probabilities(self, one: Progress, image: InputImage) -> None:
        for place, values in enumerate(self.model.probabilities(image)):
            name = re.sub(r"[^\w.-]+", "-", self.model.classes[place])
            one.outputs += (f"{PROBABILITIES}/{one.case.id}/{place + 1}-{name}.nii.gz",)
            write_probabilities(self.out / one.outputs[-1], image, values, one.case.files[0])

    def _write(self, one: Progress, image: InputImage, labels_S: np.ndarray) -> None:
        case, model = one.case, self.model
        target = self.out / mask_name(case, self.options)
        if target.suffix == ".dcm":
            assert image.geometry is not None
            labels, affine = image.to_file(labels_S), np.array(image.geometry.affine)
            labels = labels[..., None] if labels.ndim == 2 else labels
            write_dicom_seg(target, case.files, labels, affine, model.labels, self._decided[:16])
        else:
            write_mask(target, image, labels_S, case.files[0])
        one.outputs += (mask_name(case, self.options),)
        if self.options.overlay:
            one.outputs += (f"{OVERLAYS}/{case.id}.png",)
            path, scheme = self.out / one.outputs[-1], model.predictor.scheme
            assert scheme is not None
            draw_prediction(path, image.image, labels_S, scheme, image.spacing)
        rows = volume_rows(case.id, image, labels_S, model.labels)
        Record(one.digest, one.outputs, tuple(rows)).write(self.out, case.id)


def mask_name(case: InputCase, options: Options) -> str:
    """The path of a case's mask within the folder of outputs."""
    return case.id + mask_ending(case.files[0], case.dicom, options.format)


def predict_cases(
    model: SegmentationModel, cases: Sequence[InputCase], out: Path, options: Options
) -> Iterator[Progress]:
    """Write a mask of each case into `out`, and what else is wanted, at last volumes.csv of all that is there.

    What `out` has already of the same image, model and options is left as it is; what cannot be predicted is left out.
    While a case passes the network, the next one is read and the last one written, where memory allows. Yields what
    became of each case. Raises InputError where a mask would replace an image.
    """
    _check_targets(cases, out, options)
    writer = CaseWriter(model, out, options)
    predicted = map(writer.predict, in_thread(writer.read, cases, _is_small))
    try:
        written = in_thread(writer.write, predicted, lambda one: one.image is None or _has_room(one.image.image.size))
        yield from tqdm(written, "predict", len(cases), unit="case", disable=bars_off())
    finally:
        write_table(out)


@contextmanager
def _failing(one: Progress) -> Iterator[None]:
    """Context manager: what a user can mend becomes the case's error."""
    try:
        yield
    except UserError as error:
        one.error = str(error)
    except OSError as error:  # a file that may not be read, a disk that is full
        one.error = f"{one.case.source}: {error}"
    except (MemoryError, torch.OutOfMemoryError):
        one.error = f"{one.case.source}: there is not enough memory for it; allowed: --device cpu, or a smaller image"


def in_thread(function: Callable[[One], Other], items: Iterable[One], ahead: Callable[[One], bool]) -> Iterator[Other]:
    """`map(function, items)`, of which each call runs in a thread while the result before it is used.

    Where `ahead` is false of an item, there is nothing beside it.
    """
    with ThreadPoolExecutor(1) as pool:
        waiting: Future[Other] | None = None
        for item in items:
            beside = ahead(item)
            if waiting is not None and not beside:
                yield waiting.result()
                waiting = None
            begun = pool.submit(function, item)
            if waiting is not None:
                yield waiting.result()
            waiting = begun
            if not beside:
                yield waiting.result()
                waiting = None
        if waiting is not None:
            yield waiting.result()


def _is_small(case: InputCase) -> bool:
    """Whether there is memory for a case beside two others."""
    if sum(path.stat().st_size for path in case.files) < SMALL:
        return True
    headers = [read_header(path) for path in case.files]
    sizes = [one.values.size if one else path.stat().st_size for path, one in zip(case.files, headers, strict=True)]
    return _has_room(sum(sizes))


def _has_room(pixels: int) -> bool:
    if pixels < SMALL:  # asking for the free memory takes as long as a small image
        return True
    return 3 * COPIES * pixels * FLOAT32 < MEMORY_FRACTION * free_bytes(torch.device("cpu"))


def _check_targets(cases: Sequence[InputCase], out: Path, options: Options) -> None:
    """Raise InputError where an output would replace an image, or another output."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file, allowed: a folder for the masks")
    images = {path.resolve() for case in cases for path in case.files}
    folders = {OVERLAYS: options.overlay, PROBABILITIES: options.probabilities}
    for case in cases:
        target = out / mask_name(case, options)
        if target.resolve() in images:
            raise InputError(f"{target}: its mask would replace this image; allowed: another folder of outputs")
        if folders.get(case.id.split("/")[0]):
            raise InputError(f"{case.source}: lies in a folder that is named as one of outputs is; rename it")
