"""Random augmentation of a training batch, in 2-D and 3-D, on the batch's own device.

A sample's random numbers are seeded with (seed, epoch, sample), never with a worker's random state, so that they are
the same on every worker and after a resume.
"""

from itertools import combinations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from llm4seg.config.schema import Augment


def _matrix(random: np.random.Generator, section: Augment, size: tuple[int, ...]) -> np.ndarray:
    """One sample's affine map from output to input, (dims, dims + 1), in `affine_grid`'s coordinates (-1 to 1)."""
    dims = len(size)
    linear = np.eye(dims) * (1 + random.uniform(-section.scale, section.scale))
    for first, second in combinations(range(dims), 2):
        angle = np.deg2rad(random.uniform(-section.rotate, section.rotate))
        rotation = np.eye(dims)
        rotation[[first, second], [first, second]] = np.cos(angle)
        rotation[first, second], rotation[second, first] = -np.sin(angle), np.sin(angle)
        linear = linear @ rotation
    for axis in section.flip:
        linear[:, axis] *= random.choice([-1, 1])
    extent = np.asarray(size, dtype=float)
    linear = linear * extent[None, :] / extent[:, None]  # rotate in pixels, not in the stretched unit square
    shift = random.uniform(-section.shift, section.shift, dims) * 2
    # affine_grid counts its axes from the last one
    return np.concatenate([linear[::-1, ::-1], shift[::-1, None]], axis=1)


def _draw(section: Augment, size: tuple[int, ...], seed: int, epoch: int, sample: int) -> tuple[np.ndarray, np.ndarray]:
    """One sample's affine map, and its gain and offset."""
    random = np.random.default_rng([seed, epoch, sample])
    matrix = _matrix(random, section, size)
    gain, offset = random.uniform(-section.intensity, section.intensity, 2)
    return matrix, np.array([1 + gain, offset])


def augment(
    images_NCS: Tensor, labels_NS: Tensor, samples: list[int], section: Augment, seed: int, epoch: int
) -> tuple[Tensor, Tensor]:
    """Flip, rotate, zoom, shift, and change gain and offset; linear for images, nearest for labels.

    Pixels from outside the image have the value of its border in the image, and background (0) in the labels.
    """
    size = tuple(labels_NS.shape[1:])
    transforms = [_draw(section, size, seed, epoch, sample) for sample in samples]
    matrices = torch.as_tensor(np.stack([matrix for matrix, _ in transforms]), dtype=images_NCS.dtype)
    gain_N2 = torch.as_tensor(np.stack([gain for _, gain in transforms]), dtype=images_NCS.dtype).to(images_NCS.device)
    shape = [len(samples), images_NCS.shape[1], *size]
    grid = functional.affine_grid(matrices.to(images_NCS.device), shape, align_corners=False)
    images = functional.grid_sample(images_NCS, grid, padding_mode="border", align_corners=False)
    labels = functional.grid_sample(labels_NS[:, None].to(images.dtype), grid, mode="nearest", align_corners=False)
    gain, offset = (gain_N2[:, k].view(-1, *[1] * (images.ndim - 1)) for k in (0, 1))
    return images * gain + offset, labels[:, 0].to(labels_NS.dtype)
