"""What augmentation draws for samples, on the host: affine maps, gains, colors, exchanged sides, displacements.

A sample's random numbers are seeded with (seed, epoch, sample), never with a worker's random state, so that they are
the same on every worker and after a resume, and those of a whole epoch can be drawn before it begins.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from llm4seg.config.schema import Augment
from llm4seg.data.elastic import draw_displacements

COLORS = 3  # channels of a color image
ANISOTROPIC = 3


@dataclass(frozen=True)
class Sides:
    """Labels that are each other's mirror image, and the array axis of a sample along which left and right lie."""

    pairs: Sequence[tuple[int, int]]
    axis: Callable[[int], int | None]

    def exchanged(self, sample: int, mirrored: Sequence[int]) -> bool:
        """Whether mirroring along these axes makes a sample's left what was its right."""
        return self.axis(sample) in mirrored


class Draws(NamedTuple):
    """Random numbers of N samples, float32; what is off in the config is None.

    `matrix`: the affine map from output to input (N, dims, dims + 1), in `affine_grid`'s coordinates; `gain`: gain and
    offset (N, 2); `exchanged`: whether labels of left and right are (N,), boolean; `color`: (N, 3, 3); `amplitude` and
    `spectrum`: the elastic displacement, see `draw_displacements`.
    """

    matrix: Tensor
    gain: Tensor
    exchanged: Tensor | None = None
    color: Tensor | None = None
    amplitude: Tensor | None = None
    spectrum: Tensor | None = None

    def each(self, function: Callable[[Tensor], Tensor]) -> Self:
        """The same with a function of each tensor in its place."""
        _, _, *others = self
        changed = (None if tensor is None else function(tensor) for tensor in others)
        return type(self)(function(self.matrix), function(self.gain), *changed)


def draw(
    samples: Sequence[int],
    section: Augment,
    size: tuple[int, ...],
    channels: int,
    seed: int,
    epoch: int,
    sides: Sides | None = None,
    spacing: Sequence[float] | None = None,
) -> Draws:
    """The draws of samples of an epoch, on the CPU."""
    drawn = [_draw(section, size, spacing, seed, epoch, sample) for sample in samples]
    matrices, gains, mirrored, colors = zip(*drawn, strict=True) if drawn else ((), (), (), ())
    draws = Draws(_float(matrices, (len(size), len(size) + 1)), _float(gains, (2,)))
    if sides is not None and sides.pairs:
        exchanged = [sides.exchanged(sample, axes) for sample, axes in zip(samples, mirrored, strict=True)]
        draws = draws._replace(exchanged=torch.tensor(exchanged, dtype=torch.bool))
    if section.color and channels == COLORS:
        draws = draws._replace(color=_float(colors, (COLORS, COLORS)))
    if section.elastic:
        amplitude, spectrum = draw_displacements(samples, section.elastic, size, seed, epoch)
        draws = draws._replace(amplitude=amplitude, spectrum=spectrum)
    return draws


def _float(arrays: Sequence[np.ndarray], shape: tuple[int, ...]) -> Tensor:
    return torch.as_tensor(np.array(arrays).reshape(-1, *shape), dtype=torch.float32)


def _draw(
    section: Augment, size: tuple[int, ...], spacing: Sequence[float] | None, seed: int, epoch: int, sample: int
) -> tuple[np.ndarray, np.ndarray, tuple[int, ...], np.ndarray]:
    """One sample's affine map, its gain and offset, the axes that it is mirrored along, and the map of its colors."""
    random = np.random.default_rng([seed, epoch, sample])
    matrix, mirrored = _matrix(random, section, size, spacing)
    gain, offset = random.uniform(-section.intensity, section.intensity, 2)
    return matrix, np.array([1 + gain, offset]), mirrored, _color(random, section)


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


def _color(random: np.random.Generator, section: Augment) -> np.ndarray:
    """A map of red, green and blue (3, 3): each of them scaled, then its distance to the mean of all three."""
    gains, saturation = 1 + random.uniform(-section.color, section.color, 3), random.uniform(-1, 1) * section.color
    to_gray = np.full((3, 3), 1 / 3)
    return (to_gray + (1 + saturation) * (np.eye(3) - to_gray)) @ np.diag(gains)


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
