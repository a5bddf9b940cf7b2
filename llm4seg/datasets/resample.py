"""Normalization of intensities and resampling to a grid of one size.

Each axis is resized by its own factor, as in the paper, so the aspect ratio is not kept.
"""

from collections.abc import Sequence

import numpy as np

from llm4seg.utils.errors import InputError

# ImageNet's mean and standard deviation of red, green and blue
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def to_size(
    image_CS: np.ndarray, size: Sequence[int], intensity: str, window: tuple[float, float] | None
) -> np.ndarray:
    """What a network reads of a raw image (C, *shape): normalized, then resized, float32 (C, *size)."""
    return resize_image(normalize(image_CS, intensity, window), size)


def normalize(image_CS: np.ndarray, intensity: str, window: tuple[float, float] | None = None) -> np.ndarray:
    """Intensities as float32, by `data.intensity` and, where that is `window`, `data.window`.

    zscore: mean 0 and standard deviation 1 of each channel of the case (a constant channel becomes 0).
    window: data.window becomes 0 to 1, what is outside is clipped.
    unit: 0 to 1; 8-bit images by their range of 255, others by the case's minimum and maximum.
    released: LLM4Seg's released normalization of 8-bit color images, for networks trained with it: channels in the
    order BGR, normalized by ImageNet's statistics in the order RGB, then divided by 255 once more.
    """
    image = image_CS.astype(np.float64)
    match intensity:
        case "zscore":
            axes = tuple(range(1, image.ndim))
            image = image - image.mean(axes, keepdims=True)
            std = image.std(axes, keepdims=True)
            image = image / np.where(std > 0, std, 1)
        case "window":
            assert window is not None
            low, high = window
            image = np.clip((image - low) / (high - low), 0, 1)
        case "unit":
            low, high = (0.0, 255.0) if image_CS.dtype == np.uint8 else (image.min(), image.max())
            image = (image - low) / max(high - low, 1e-12)
        case "released":
            image = _as_released(image_CS)
    return image.astype(np.float32)


def _as_released(image_CS: np.ndarray) -> np.ndarray:
    if image_CS.dtype != np.uint8 or len(image_CS) != len(MEAN):
        found = f"{len(image_CS)} channels of {image_CS.dtype}"
        raise InputError(f"data.intensity: found released, but the images have {found}, allowed: 3 of uint8")
    mean, std = (np.reshape(values, (-1, *[1] * (image_CS.ndim - 1))) for values in (MEAN, STD))
    return (image_CS[::-1] / 255 - mean) / std / 255


def resize_image(image_CS: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """(C, *shape) to (C, *size), linear; smoothed first along axes that shrink, so that nothing aliases."""
    from scipy import ndimage

    shrink = np.array(image_CS.shape[1:]) / size
    sigma = np.maximum(0, (shrink - 1) / 2)
    channels = [ndimage.gaussian_filter(channel, sigma, mode="nearest") for channel in image_CS]
    return np.stack([ndimage.zoom(one, 1 / shrink, order=1, mode="nearest", grid_mode=True) for one in channels])


def resize_labels(labels_S: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """(*shape) to (*size), nearest."""
    from scipy import ndimage

    factors = np.array(size) / labels_S.shape
    return ndimage.zoom(labels_S, factors, order=0, mode="nearest", grid_mode=True)
