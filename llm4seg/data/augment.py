"""Random augmentation of a training batch, in 2-D and 3-D, on the batch's own device.

A sample's random numbers are seeded with (seed, epoch, sample), never with a worker's random state, so that they are
the same on every worker and after a resume.
"""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from llm4seg.config.schema import Augment
from llm4seg.data.elastic import deform
from llm4seg.data.intensity_augment import augment_intensities
from llm4seg.data.label_scheme import IGNORE
from llm4seg.data.prepared import Prepared
from llm4seg.utils.errors import InputError

OF_A_SIDE = re.compile(r"(?<![a-z])(left|right)(?![a-z])", re.IGNORECASE)
COLORS = 3  # channels of a color image
ANISOTROPIC = 3


@dataclass(frozen=True)
class Sides:
    """Labels that are each other's mirror image, and the array axis of a sample along which left and right lie."""

    pairs: Sequence[tuple[int, int]]
    axis: Callable[[int], int | None]


def swapped(labels: Tensor, pairs: Sequence[tuple[int, int]]) -> Tensor:
    """Labels with those of each pair exchanged."""
    result = labels.clone()
    for left, right in pairs:
        result[labels == left], result[labels == right] = right, left
    return result


@dataclass(frozen=True)
class Draw:
    """What is drawn for one sample: its affine map, its gain and offset, the axes that it is mirrored along, and the
    map of its colors (C, C).
    """

    matrix: np.ndarray
    gain: np.ndarray
    mirrored: tuple[int, ...]
    color: np.ndarray


def thin_axis(size: Sequence[int], spacing: Sequence[float] | None) -> int | None:
    """The axis across slices, along which patches of volumes with a spacing are neither turned, zoomed nor deformed.

    Where slices are more than ANISOTROPIC times as far apart as pixels, or so many times fewer than them: by nnU-Net's
    rule for patches, as voxels would leave the patch.
    """
    if spacing is None:
        return None
    coarse, fewest = int(np.argmax(spacing)), int(np.argmin(size))
    if spacing[coarse] > ANISOTROPIC * max(np.delete(spacing, coarse)):
        return coarse
    return fewest if max(size) > ANISOTROPIC * size[fewest] else None


def _matrix(
    random: np.random.Generator, section: Augment, size: tuple[int, ...], spacing: Sequence[float] | None
) -> tuple[np.ndarray, tuple[int, ...]]:
    """One sample's affine map from output to input, (dims, dims + 1), in `affine_grid`'s coordinates (-1 to 1), and the
    axes that it mirrors.
    """
    dims, thin = len(size), thin_axis(size, spacing)
    zoom = np.full(dims, 1 + random.uniform(-section.scale, section.scale))
    if thin is not None:
        zoom[thin] = 1.0
    linear = np.diag(zoom)
    for first, second in combinations(range(dims), 2):
        angle = np.deg2rad(random.uniform(-section.rotate, section.rotate)) * (thin not in (first, second))
        rotation = np.eye(dims)
        rotation[[first, second], [first, second]] = np.cos(angle)
        rotation[first, second], rotation[second, first] = -np.sin(angle), np.sin(angle)
        linear = linear @ rotation
    signs = [int(random.choice([-1, 1])) for _ in section.flip]
    for axis, sign in zip(section.flip, signs, strict=True):
        linear[:, axis] *= sign
    extent = np.asarray(size, dtype=float) * (1.0 if spacing is None else np.asarray(spacing))
    mirrored = [axis for axis, sign in zip(section.flip, signs, strict=True) if sign < 0]
    linear = linear * extent[None, :] / extent[:, None]  # rotate in pixels or mm, not in the stretched unit square
    shift = random.uniform(-section.shift, section.shift, dims) * 2
    if section.quarter_turns:
        turns = int(random.integers(4))
        quarter = np.eye(dims)
        quarter[:2, :2] = np.linalg.matrix_power(np.array([[0, -1], [1, 0]]), turns)
        linear = linear @ quarter
    # affine_grid counts its axes from the last one
    return np.concatenate([linear[::-1, ::-1], shift[::-1, None]], axis=1), tuple(mirrored)


def _draw(
    section: Augment, size: tuple[int, ...], spacing: Sequence[float] | None, seed: int, epoch: int, sample: int
) -> Draw:
    random = np.random.default_rng([seed, epoch, sample])
    matrix, mirrored = _matrix(random, section, size, spacing)
    gain, offset = random.uniform(-section.intensity, section.intensity, 2)
    return Draw(matrix, np.array([1 + gain, offset]), mirrored, _color(random, section))


def _color(random: np.random.Generator, section: Augment) -> np.ndarray:
    """A map of red, green and blue (3, 3): each of them scaled, then its distance to the mean of all three."""
    gains, saturation = 1 + random.uniform(-section.color, section.color, 3), random.uniform(-1, 1) * section.color
    to_gray = np.full((3, 3), 1 / 3)
    return (to_gray + (1 + saturation) * (np.eye(3) - to_gray)) @ np.diag(gains)


def augment(
    images_NCS: Tensor,
    labels_NS: Tensor,
    samples: list[int],
    section: Augment,
    seed: int,
    epoch: int,
    sides: Sides | None = None,
    spacing: Sequence[float] | None = None,
) -> tuple[Tensor, Tensor]:
    """Flip, rotate, zoom, shift, deform, and change values; linear for images, nearest for labels.

    The affine map and the elastic deformation are one resampling. Pixels from outside the image have the value of its
    border in the image, and background (0) in the labels; those from outside a patch of a volume, IGNORE. Of a sample
    that is mirrored along its axis of left and right, labels of a pair are swapped (`sides`). Images are rotated in
    pixels, patches of volumes with a `spacing` in mm, and in the plane of their slices alone where those are few or far
    apart (`thin_axis`).
    """
    size = tuple(labels_NS.shape[1:])
    draws = [_draw(section, size, spacing, seed, epoch, sample) for sample in samples]
    matrices = torch.as_tensor(np.stack([draw.matrix for draw in draws]), dtype=images_NCS.dtype)
    gain_N2 = torch.as_tensor(np.stack([draw.gain for draw in draws]), dtype=images_NCS.dtype).to(images_NCS.device)
    if sides is not None and sides.pairs:
        labels_NS = torch.stack(
            [
                swapped(labels_S, sides.pairs) if sides.axis(sample) in draw.mirrored else labels_S
                for labels_S, sample, draw in zip(labels_NS, samples, draws, strict=True)
            ]
        )
    shape = [len(samples), images_NCS.shape[1], *size]
    grid = functional.affine_grid(matrices.to(images_NCS.device), shape, align_corners=False)
    if section.elastic:
        grid = deform(grid, samples, section.elastic, seed, epoch, thin_axis(size, spacing))
    images = functional.grid_sample(images_NCS, grid, padding_mode="border", align_corners=False)
    labels = functional.grid_sample(labels_NS[:, None].to(images.dtype), grid, mode="nearest", align_corners=False)
    if spacing is not None:  # beyond a patch's border the organ may go on
        labels.masked_fill_((grid.abs() > 1).any(dim=-1)[:, None], IGNORE)
    if section.color and images.shape[1] == COLORS:
        color_NCC = torch.as_tensor(np.stack([draw.color for draw in draws]), dtype=images.dtype).to(images.device)
        images = torch.einsum("nij,nj...->ni...", color_NCC, images)
    gain, offset = (gain_N2[:, k].view(-1, *[1] * (images.ndim - 1)) for k in (0, 1))
    images = augment_intensities(images * gain + offset, samples, section, seed, epoch, thin_axis(size, spacing))
    return images, labels[:, 0].to(labels_NS.dtype)


def check_turns(data: Prepared, section: Augment) -> None:
    """Refuse quarter turns of pixels that are not square: what is turned would be stretched."""
    if data.spacing is None:
        return
    rows, columns, _ = data.spacing
    try:
        section.check_pixels(rows, columns)
    except ValueError as error:
        raise InputError(str(error)) from None


def check_turned_flips(data: Prepared, cases: Sequence[str], section: Augment) -> None:
    """Refuse flips with turns after which a left organ looks like a right one, but keeps its label.

    In the plane that is turned, a flip along any axis is one of left and right and a turn. So only that one may be
    asked for, whose labels are exchanged; together with turns it gives all the same images.
    """
    plane = _turned_axes(section, data.spatial_dims)
    axes = {axis for case in cases if (axis := data.left_right_axis(case)) is not None and axis in plane}
    if has_sides(data) and axes and (more := set(section.flip) & plane - axes):
        raise InputError(
            f"training.augment.flip: found {[*section.flip]} with training.augment.{_turns(section)}, which together "
            f"exchange left and right, but not their labels; allowed: without {', '.join(map(str, sorted(more)))} "
            f"(axis {', '.join(map(str, sorted(axes)))} and turns give the same images), or without turns"
        )


def check_turned_mirroring(
    axes: Sequence[int], sides: Collection[int | None], section: Augment, dims: int, parameter: str
) -> None:
    """Refuse test-time mirroring by whose images a network that was trained with turns confuses left and right.

    `sides`: the axes along which classes of a side lie, none where no class has one; `section`: of the training. Such
    a network tells left from right in a turned image, too. As in `check_turned_flips`, one mirrored along another axis
    of the plane is one of left and right, turned, but its labels are not exchanged; along both, it is turned alone,
    but they are.
    """
    plane = _turned_axes(section, dims)
    if (own := set(sides) & plane) and (more := set(axes) & plane - own):
        raise InputError(
            f"{parameter}: found {[*axes]}, of a network that was trained with training.augment.{_turns(section)}, so "
            f"that left and right would be confused; allowed: without {', '.join(map(str, sorted(more)))}"
        )


def _turned_axes(section: Augment, dims: int) -> set[int]:
    """The axes within which images are turned so far that what lies along one may lie along any other."""
    return set(range(dims)) if section.rotate > 90 else {0, 1} if section.quarter_turns else set()


def _turns(section: Augment) -> str:
    return "quarter_turns" if section.quarter_turns else f"rotate: {section.rotate:g}"


def has_sides(data: Prepared) -> bool:
    """Whether there are classes of left and right."""
    return bool(data.paired) or any(OF_A_SIDE.search(name) for name in data.classes)


def check_flips(
    data: Prepared, cases: Sequence[str], flip: Sequence[int], parameter: str = "training.augment.flip"
) -> None:
    """Refuse flips of left and right with classes that are called so and have no counterpart."""
    paired = {data.classes[label - 1] for pair in data.paired for label in pair}
    astray = [name for name in data.classes if OF_A_SIDE.search(name) and name not in paired]
    if astray and {data.left_right_axis(case) for case in cases} & set(flip):
        raise InputError(
            f"{parameter}: found {[*flip]}, which exchanges left and right, but not the label {astray[0]}; "
            "allowed: data.paired with it and its counterpart, or other axes"
        )
