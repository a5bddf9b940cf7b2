"""Elastic deformation: a smooth random displacement of an image's sampling grid, in 2-D and 3-D."""

import math

import numpy as np
import torch
from torch import Tensor

CHANCE = 0.2  # of an image: p_el_per_sample of nnU-Net v1's transforms; v2 has no elastic deformation by default
SIGMA = 1 / 8  # of the Gaussian filter that smooths the field, in sides of the image
FREQUENCIES = 8  # along each axis; the filter leaves 2 % of the next one
STREAM = 1  # of random numbers; the affine map's have no number


def cosines(side: int) -> np.ndarray:
    """DCT-II basis functions along an axis (FREQUENCIES, side), each multiplied by the Gaussian filter's response."""
    frequencies = np.arange(FREQUENCIES)[:, None]
    basis = np.cos(math.pi * frequencies * (np.arange(side) + 0.5) / side)
    basis[1:] *= math.sqrt(2)
    return basis * np.exp(-((math.pi * frequencies * SIGMA) ** 2) / 2)


def smooth_field(random: np.random.Generator, size: tuple[int, ...], device: torch.device) -> Tensor:
    """White noise (*size, dims) smoothed by a Gaussian filter that reflects at the borders; its largest value is 1.

    The filter is a product in the basis of the discrete cosine transform, so only the few low frequencies that it
    leaves are drawn and transformed back.
    """
    dims = len(size)
    drawn = random.standard_normal((dims, *[FREQUENCIES] * dims), dtype=np.float32)
    field = torch.from_numpy(drawn).to(device)
    for side in size:  # each step replaces the first axis of frequencies by an axis of positions, which goes last
        basis = torch.from_numpy(cosines(side).astype(np.float32)).to(device)
        field = torch.tensordot(field, basis, dims=([1], [0]))
    return field.movedim(0, -1) / field.abs().max()


def deform(
    grid_NSd: Tensor, samples: list[int], largest: float, seed: int, epoch: int, thin: int | None = None
) -> Tensor:
    """Add a displacement to the sampling grid (`grid_sample`'s, -1 to 1) of a share CHANCE of the samples.

    The largest displacement is drawn from 0 to `largest` pixels of the longest axis; along shorter axes it is the same
    share of the side, so that the few slices of an anisotropic volume are not folded over. Along the axis `thin`
    nothing moves.
    """
    size = tuple(grid_NSd.shape[1:-1])
    deformed = grid_NSd.clone()
    for place, sample in enumerate(samples):
        random = np.random.default_rng([seed, epoch, sample, STREAM])
        if random.random() < CHANCE:
            amplitude = random.uniform(0, largest) * 2 / max(size)
            field = smooth_field(random, size, grid_NSd.device)
            if thin is not None:
                field[..., -1 - thin] = 0  # grid_sample counts its axes from the last one
            deformed[place] += amplitude * field
    return deformed
