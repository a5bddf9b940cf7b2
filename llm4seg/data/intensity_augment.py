"""Random changes of an image's values as in nnU-Net: noise, blur, contrast, low resolution and gamma.

Order, chances and ranges are those of nnU-Net v2's default trainer (`nnUNetTrainer.get_training_transforms`, with
batchgeneratorsv2), each drawn for every image, and within it for every channel.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from llm4seg.config.schema import Augment

SHARE = 0.5  # of an image's channels that are blurred, or have a low resolution, in an image that has been drawn
TINY = 1e-7  # smallest divisor: channels may be constant


def gaussian_noise(image_CS: Tensor, most: float, random: np.random.Generator) -> Tensor:
    """Add Gaussian noise of one standard deviation from 0 to `most`, in units of the image's values.

    Drawn on the CPU, so that it is the same on every device.
    """
    sigma = random.uniform(0, most)
    noise = random.standard_normal(tuple(image_CS.shape), dtype=np.float32)
    return image_CS + sigma * torch.from_numpy(noise).to(image_CS)


def gaussian_blur(image_CS: Tensor, sigma: float) -> Tensor:
    """Gaussian filter of `sigma` pixels along every axis; the image goes on beyond its border as the border is."""
    from monai.networks.layers import separable_filtering  # here: the import takes ten seconds
    from monai.networks.layers.convutils import gaussian_1d

    kernel = gaussian_1d(torch.tensor(sigma), truncated=4.0, approx="sampled", normalize=True)
    blurred: Tensor = separable_filtering(image_CS[None], [kernel] * (image_CS.ndim - 1), mode="replicate")[0]
    return blurred


def adjust_contrast(image_CS: Tensor, factor_C: Tensor) -> Tensor:
    """Multiply each channel's distance to its mean by a factor, and clip it to the range that it had."""
    space = tuple(range(1, image_CS.ndim))
    mean, low, high = image_CS.mean(space, True), image_CS.amin(space, True), image_CS.amax(space, True)
    return ((image_CS - mean) * _like(factor_C, image_CS) + mean).clamp(low, high)


def low_resolution(image_CS: Tensor, zoom: float, thin: int | None = None) -> Tensor:
    """Sample an image down to `zoom` of its size (nearest pixel), and back up (linear); not along the axis `thin`."""
    size = tuple(image_CS.shape[1:])
    smaller = [side if axis == thin else max(1, round(side * zoom)) for axis, side in enumerate(size)]
    mode = {2: "bilinear", 3: "trilinear"}[len(size)]
    down = functional.interpolate(image_CS[None], smaller, mode="nearest-exact")
    return functional.interpolate(down, size, mode=mode, align_corners=False)[0]


def adjust_gamma(image_CS: Tensor, exponent_C: Tensor, inverted: bool = False) -> Tensor:
    """Raise each channel, scaled to 0 to 1 and back, to a power; its mean and standard deviation stay what they were.

    `inverted`: do so with the negative, so that bright values are spread instead of dark ones.
    """
    if inverted:
        return -adjust_gamma(-image_CS, exponent_C)
    space = tuple(range(1, image_CS.ndim))
    mean, std = image_CS.mean(space, keepdim=True), image_CS.std(space, keepdim=True)
    low = image_CS.amin(space, True)
    extent = image_CS.amax(space, True) - low
    changed = ((image_CS - low) / extent.clamp(min=TINY)) ** _like(exponent_C, image_CS) * extent + low
    scale = std / changed.std(space, keepdim=True).clamp(min=TINY)
    return (changed - changed.mean(space, keepdim=True)) * scale + mean


def _like(values_C: Tensor, image_CS: Tensor) -> Tensor:
    return values_C.to(image_CS).view(-1, *[1] * (image_CS.ndim - 1))


def _factors(random: np.random.Generator, low: float, high: float, channels: int) -> Tensor:
    """A factor for each channel, as often between `low` and 1 as between 1 and `high`."""
    ends = [(low, 1) if random.random() < 0.5 else (1, high) for _ in range(channels)]
    return torch.tensor([random.uniform(*one) for one in ends])


def _in_some_channels(
    image_CS: Tensor, change: Callable[[Tensor, float], Tensor], low: float, high: float, random: np.random.Generator
) -> Tensor:
    """Change about half of the channels, each by a value from `low` to `high`."""
    draws = random.random(len(image_CS)), random.uniform(low, high, len(image_CS))
    changed = [
        change(channel[None], float(value)) if chance < SHARE else channel[None]
        for channel, chance, value in zip(image_CS, *draws, strict=True)
    ]
    return torch.cat(changed)


def _blur(image_CS: Tensor, most: float, random: np.random.Generator) -> Tensor:
    return _in_some_channels(image_CS, gaussian_blur, most / 2, most, random)


def _low_resolution(image_CS: Tensor, least: float, random: np.random.Generator, thin: int | None = None) -> Tensor:
    return _in_some_channels(image_CS, partial(low_resolution, thin=thin), least, 1, random)


def _contrast(image_CS: Tensor, most: float, random: np.random.Generator) -> Tensor:
    return adjust_contrast(image_CS, _factors(random, 1 - most, 1 + most, len(image_CS)))


def _gamma(image_CS: Tensor, most: float, random: np.random.Generator) -> Tensor:
    return adjust_gamma(image_CS, _factors(random, 1 / (1 + most), 1 + most, len(image_CS)))


def _gamma_inverted(image_CS: Tensor, most: float, random: np.random.Generator) -> Tensor:
    return adjust_gamma(image_CS, _factors(random, 1 / (1 + most), 1 + most, len(image_CS)), inverted=True)


# parameter of `training.augment`: chance of an image, and the change by the parameter's value
CHANGES: dict[str, tuple[float, Callable[[Tensor, float, np.random.Generator], Tensor]]] = {
    "noise": (0.1, gaussian_noise),
    "blur": (0.2, _blur),
    "contrast": (0.15, _contrast),
    "low_resolution": (0.25, _low_resolution),
    "gamma_inverted": (0.1, _gamma_inverted),
    "gamma": (0.3, _gamma),
}
FIRST_STREAM = 2  # of random numbers: 1 is the elastic deformation's


def augment_intensities(
    images_NCS: Tensor, samples: list[int], section: Augment, seed: int, epoch: int, thin: int | None = None
) -> Tensor:
    """Change the values of random images of a batch, in place, by what `section` switches on; `thin`: the axis across
    slices that keep their resolution.

    Each change has random numbers of its own, seeded by (seed, epoch, sample): switching one on alters no other.
    """
    for stream, (name, (chance, change)) in enumerate(CHANGES.items(), start=FIRST_STREAM):
        if not (strength := getattr(section, name)):
            continue
        if name == "low_resolution":
            change = partial(_low_resolution, thin=thin)
        for place, sample in enumerate(samples):
            random = np.random.default_rng([seed, epoch, sample, stream])
            if random.random() < chance:
                images_NCS[place] = change(images_NCS[place], strength, random)
    return images_NCS
