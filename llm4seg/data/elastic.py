"""Elastic deformation: a smooth random displacement of an image's sampling grid, in 2-D and 3-D."""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

CHANCE = 0.2  # of an image: p_el_per_sample of nnU-Net v1's transforms; v2 has no elastic deformation by default
SIGMA = 1 / 8  # of the Gaussian filter that smooths the field, in sides of the image
FREQUENCIES = 8  # along each axis; the filter leaves 2 % of the next one
STREAM = 1  # of random numbers; the affine map's have no number
TINY = 1e-30  # smallest divisor: the field of a spectrum of zeros is zero


@cache
def cosines(side: int, device: torch.device) -> Tensor:
    """DCT-II basis functions along an axis (FREQUENCIES, side), each multiplied by the Gaussian filter's response."""
    frequencies = np.arange(FREQUENCIES)[:, None]
    basis = np.cos(math.pi * frequencies * (np.arange(side) + 0.5) / side)
    basis[1:] *= math.sqrt(2)
    basis *= np.exp(-((math.pi * frequencies * SIGMA) ** 2) / 2)
    return torch.from_numpy(basis.astype(np.float32)).to(device)


def draw_displacements(
    samples: Sequence[int], largest: float, size: Sequence[int], seed: int, epoch: int
) -> tuple[Tensor, Tensor]:
    """Amplitudes (N,) and spectra (N, dims, FREQUENCIES, ...) of the displacements, on the CPU; of a share CHANCE of
    the samples, zeros of the others.

    The largest displacement is drawn from 0 to `largest` pixels of the longest axis; along shorter axes it is the same
    share of the side, so that the few slices of an anisotropic volume are not folded over.
    """
    amplitude = np.zeros(len(samples), np.float32)
    spectrum = np.zeros((len(samples), len(size), *[FREQUENCIES] * len(size)), np.float32)
    for place, sample in enumerate(samples):
        random = np.random.default_rng([seed, epoch, sample, STREAM])
        if random.random() < CHANCE:
            amplitude[place] = random.uniform(0, largest) * 2 / max(size)
            spectrum[place] = random.standard_normal(spectrum.shape[1:], dtype=np.float32)
    return torch.from_numpy(amplitude), torch.from_numpy(spectrum)


def smooth_field(spectrum: Tensor, size: Sequence[int]) -> Tensor:
    """White noise (*size, dims) smoothed by a Gaussian filter that reflects at the borders; its largest value is 1.

    The filter is a product in the basis of the discrete cosine transform, so only the few low frequencies that it
    leaves are drawn, `spectrum` (dims, FREQUENCIES, ...), and transformed back.
    """
    field = spectrum
    for side in size:  # each step replaces the first axis of frequencies by an axis of positions, which goes last
        field = torch.tensordot(field, cosines(side, spectrum.device), dims=([1], [0]))
    return field.movedim(0, -1) / field.abs().max().clamp(min=TINY)


def deform(
    grid_NSd: Tensor, amplitude_N: Tensor, spectrum: Tensor, thin: int | None = None, moved: Sequence[int] | None = None
) -> Tensor:
    """Add displacements (see `draw_displacements`) to the sampling grid, `grid_sample`'s, -1 to 1; along the axis
    `thin` nothing moves. `moved`: the samples that have one; None: all.
    """
    size = tuple(grid_NSd.shape[1:-1])
    deformed = grid_NSd.clone()
    for place in range(len(grid_NSd)) if moved is None else moved:
        field = smooth_field(spectrum[place], size)
        if thin is not None:
            field[..., -1 - thin] = 0  # grid_sample counts its axes from the last one
        deformed[place] += amplitude_N[place] * field
    return deformed
