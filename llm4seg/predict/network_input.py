"""From a raw image to what networks read, by the functions that `prepare` writes it with."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from llm4seg.data.preprocessing import Preprocessing
from llm4seg.datasets.cases import is_constant
from llm4seg.datasets.resample import to_size
from llm4seg.datasets.spacing import Box, crop_box
from llm4seg.datasets.volume_grid import check_memory, to_spacing, volume_grid
from llm4seg.inference.grid_logits import NetworkInput
from llm4seg.predict.input_image import InputImage
from llm4seg.utils.errors import InputError


@dataclass(frozen=True)
class _Measured:
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    source: str


def read_image(one: InputImage, models: Sequence[Preprocessing], trained: str) -> list[NetworkInput]:
    """An image or volume as each model reads it at once. Raises InputError where it needs a spacing, or memory."""
    box = crop_box(one.image) if _is_cropped(one, models) else _whole(one.shape)
    read = {model: _read(one, box, model, trained) for model in dict.fromkeys(models)}  # folds may read alike
    return [_with_sides(read[model], one, model) for model in models]


def read_slices(one: InputImage, models: Sequence[Preprocessing]) -> Iterator[list[NetworkInput] | None]:
    """The slices of a volume as each 2-D model reads them; None: a slice out of the box, or constant, which `prepare`
    leaves out as padding.
    """
    box = crop_box(one.image) if _is_cropped(one, models) else _whole(one.shape)
    (low, high), plane = box[-1], box[:-1]
    for position in range(one.shape[-1]):
        image = np.ascontiguousarray(_inside(one.image[..., position], plane))  # as `prepare` has it, to the last bit
        if not low <= position < high or is_constant(image):
            yield None
            continue
        read = {model: _resized(image, one.shape[:-1], plane, model) for model in dict.fromkeys(models)}
        yield [_with_sides(read[model], one, model) for model in models]


def _with_sides(read: NetworkInput, one: InputImage, model: Preprocessing) -> NetworkInput:
    return replace(read, left_right=one.left_right_axis(model))


def _is_cropped(one: InputImage, models: Sequence[Preprocessing]) -> bool:
    return models[0].cropped and len(one.shape) == 3


def _whole(shape: Sequence[int]) -> Box:
    return tuple((0, side) for side in shape)


def _inside(image_CS: np.ndarray, box: Box) -> np.ndarray:
    return image_CS[(slice(None), *(slice(low, high) for low, high in box))]


def _read(one: InputImage, box: Box, model: Preprocessing, trained: str) -> NetworkInput:
    if model.spacing is None:
        return _resized(_inside(one.image, box), one.shape, box, model)
    if one.spacing is None:
        steps = " x ".join(f"{step:g}" for step in model.spacing)
        raise InputError(
            f"{one.source}: has no spacing, but {trained} reads volumes at {steps} mm; give `spacing`: mm along rows, "
            "columns and slices"
        )
    assert model.normalization is not None
    box = crop_box(one.image)
    check_memory(_Measured(one.shape, one.spacing, one.source), model.spacing)
    image = to_spacing(_inside(one.image, box), one.spacing, model.spacing)
    normalized = model.normalization(torch.from_numpy(image), volume_grid(image, box, {}))
    return NetworkInput(normalized, one.shape, box, model.size)


def _resized(image_CS: np.ndarray, shape: tuple[int, ...], box: Box, model: Preprocessing) -> NetworkInput:
    assert model.size is not None
    assert model.intensity is not None  # `load` refuses others
    return NetworkInput(torch.from_numpy(to_size(image_CS, model.size, model.intensity, model.window)), shape, box)
