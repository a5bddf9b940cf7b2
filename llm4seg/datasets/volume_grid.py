"""A volume on the grid of a dataset's spacing: its arrays for the shard, and what the manifest says of them.

Beside a volume's tiles (see `data.tiles`), a shard has the places of at most MOST_VOXELS voxels of each label, and the
intensities of as many labeled voxels.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import psutil

from llm4seg.data.intensity import BYTE, VolumeGrid
from llm4seg.data.label_scheme import foreground
from llm4seg.data.prepared import MOST_VOXELS, Case
from llm4seg.data.tiles import block_edges, block_type, to_tiles
from llm4seg.datasets.resample_volume import resample_image, resample_labels
from llm4seg.datasets.spacing import Box, across_slices, grid_shape, sides
from llm4seg.utils.errors import InputError

AT_WORK = 4 * 4  # bytes for each voxel of the grid while a volume is resampled


@dataclass(frozen=True)
class OnGrid:
    """A case with what the manifest says of its grid, its arrays for the shard, and its labels on the grid."""

    case: Case
    arrays: dict[str, np.ndarray]
    labels: np.ndarray


class Measured(Protocol):
    """An original volume: its shape, its spacing in mm along rows, columns and slices, and where it is from."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def spacing(self) -> tuple[float, ...]: ...

    @property
    def source(self) -> str: ...


def check_memory(case: Measured, spacing: Sequence[float]) -> None:
    """Raise InputError where a volume would be larger at a spacing than what memory is free."""
    shape = grid_shape(case.shape, case.spacing, spacing)
    needed, free = bytes_at_work(case, spacing), psutil.virtual_memory().available
    if needed > free:
        raise InputError(
            f"data.spacing: found {[*spacing]} (rows, columns, slices), at which {case.source} has "
            f"{' x '.join(map(str, shape))} voxels: {needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free; "
            "allowed: a coarser one"
        )


def bytes_at_work(case: Measured, spacing: Sequence[float]) -> int:
    """The bytes that a volume takes on its grid while it is resampled."""
    return AT_WORK * math.prod(grid_shape(case.shape, case.spacing, spacing))


def on_grid(spacing: Sequence[float], case: Case, box: Box, image_CS: np.ndarray, labels_S: np.ndarray) -> OnGrid:
    """A case's original image and labels, cropped to a box and resampled."""
    check_memory(case, spacing)
    size, across = grid_shape(sides(box), case.spacing, spacing), across_slices(case.spacing, spacing)
    inside = tuple(slice(low, high) for low, high in box)
    labels = resample_labels(labels_S[inside], size, across)
    image = to_spacing(image_CS[(slice(None), *inside)], case.spacing, spacing)
    voxels, counts = _voxels(labels, case.id)
    grid, values = volume_grid(image, box, counts), _foreground(image, labels, case.id)
    tiles = to_tiles(image, labels, block_type(len(image), grid.dtype, grid.block))
    del image
    arrays = {"tiles": tiles, "voxels": voxels, "foreground": values}
    return OnGrid(replace(case, grid=grid), arrays, labels)


def to_spacing(image_CS: np.ndarray, spacing: Sequence[float], target: Sequence[float]) -> np.ndarray:
    """A volume (C, *shape), cropped already, at another spacing; intensities as they are."""
    size = grid_shape(image_CS.shape[1:], spacing, target)
    return resample_image(image_CS, size, across_slices(spacing, target))


def volume_grid(image_CS: np.ndarray, box: Box, counts: dict[int, int]) -> VolumeGrid:
    """What normalization takes of a volume on the network's grid, to which a box of the original was resampled.

    `counts`: the voxels of each label.
    """
    moments = [_moments(channel) for channel in image_CS]
    extremes = (float(image_CS.min()), float(image_CS.max()))
    return VolumeGrid(
        crop=box,
        shape=image_CS.shape[1:],
        mean=tuple(mean for mean, _ in moments),
        std=tuple(std for _, std in moments),
        range=BYTE if image_CS.dtype == np.uint8 else extremes,
        voxels=counts,
        dtype=image_CS.dtype.name,
        block=block_edges(image_CS.shape[1:], len(image_CS) * image_CS.itemsize + 1),
    )


def _moments(values_S: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation, row by row: in double precision, without another volume in memory."""
    mean = sum(float(row.sum(dtype=np.float64)) for row in values_S) / values_S.size
    squares = sum(float(np.square(row.astype(np.float64) - mean).sum()) for row in values_S)
    return mean, math.sqrt(squares / values_S.size)


def _voxels(labels_S: np.ndarray, case_id: str) -> tuple[np.ndarray, dict[int, int]]:
    """Places of at most MOST_VOXELS voxels of each label, int32 (V, dims), label after label; and their number."""
    random = _random(case_id)
    present = np.unique(labels_S)
    places, counts = [np.zeros((0, labels_S.ndim), np.int32)], {}
    for label in present[foreground(present)].tolist():
        flat = np.flatnonzero(labels_S == label)
        counts[label] = len(flat)
        places.append(np.stack(np.unravel_index(_some(flat, random), labels_S.shape), axis=1).astype(np.int32))
    return np.concatenate(places), counts


def _foreground(image_CS: np.ndarray, labels_S: np.ndarray, case_id: str) -> np.ndarray:
    """Intensities of at most MOST_VOXELS labeled voxels, float32 (C, F)."""
    flat = _some(np.flatnonzero(foreground(labels_S)), _random(case_id))
    return np.stack([channel.ravel()[flat] for channel in image_CS]).astype(np.float32)


def _some(values: np.ndarray, random: np.random.Generator) -> np.ndarray:
    if len(values) <= MOST_VOXELS:
        return values
    return values[np.sort(random.choice(len(values), MOST_VOXELS, replace=False, shuffle=False))]


def _random(case_id: str) -> np.random.Generator:
    """Random numbers of a case alone: another case changes none of them."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(case_id.encode()).digest()[:8], "big"))
