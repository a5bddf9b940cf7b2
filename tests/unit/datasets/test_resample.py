"""Normalizing and resizing, with values worked out by hand."""

import numpy as np
import pytest

from llm4seg.datasets.resample import normalize, resize_image, resize_labels
from llm4seg.utils.errors import InputError


def test_zscore_is_per_channel() -> None:
    image = np.array([[[1, 3], [5, 7]], [[10, 10], [10, 10]]], dtype=np.int16)
    result = normalize(image, "zscore")
    root = np.sqrt(5)  # the standard deviation of 1, 3, 5, 7
    assert result.dtype == np.float32
    assert result[0].ravel() == pytest.approx(np.array([-3, -1, 1, 3]) / root)
    assert not result[1].any()  # constant: no division by zero


def test_window_clips() -> None:
    image = np.array([[[-2000, -1000, -300, 400, 3000]]], dtype=np.int16)
    assert normalize(image, "window", (-1000, 400))[0, 0] == pytest.approx([0, 0, 0.5, 1, 1])


def test_unit_goes_by_8_bits_or_by_the_extremes() -> None:
    pixels = [[[0, 51, 102]]]
    assert normalize(np.array(pixels, dtype=np.uint8), "unit")[0, 0] == pytest.approx([0, 0.2, 0.4])
    assert normalize(np.array(pixels, dtype=np.int16), "unit")[0, 0] == pytest.approx([0, 0.5, 1])
    assert not normalize(np.full((1, 2, 2), 7, dtype=np.int16), "unit").any()


def test_released_is_what_the_released_code_does() -> None:
    """Read as blue, green, red; the statistics are those of red, green, blue; divided by 255 at both ends."""
    red, green, blue = 255, 51, 0
    image = np.array([[[red]], [[green]], [[blue]]], dtype=np.uint8)
    expected = [(0 - 0.485) / 0.229 / 255, (0.2 - 0.456) / 0.224 / 255, (1 - 0.406) / 0.225 / 255]
    assert normalize(image, "released").ravel() == pytest.approx(expected)


@pytest.mark.parametrize("image", [np.zeros((1, 2, 2), np.uint8), np.zeros((3, 2, 2), np.int16)])
def test_released_is_for_color_pictures(image: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"data\.intensity: found released, but .*, allowed: 3 of uint8"):
        normalize(image, "released")


def test_resizing_to_the_same_size_changes_nothing() -> None:
    image = np.random.default_rng(0).normal(size=(2, 9, 11)).astype(np.float32)
    assert np.array_equal(resize_image(image, (9, 11)), image)
    labels = (image[0] > 0).astype(np.uint8)
    assert np.array_equal(resize_labels(labels, (9, 11)), labels)


@pytest.mark.parametrize("size", [(16, 12), (6, 30), (8, 6, 10)])
def test_resizing_keeps_places_and_values(size: tuple[int, ...]) -> None:
    """A linear ramp stays one, a half-plane stays one: pixel centers are where they belong, in 2-D and 3-D."""
    shape = tuple(2 * side if axis else side + 3 for axis, side in enumerate(size))
    centers = (np.arange(shape[0]) + 0.5) / shape[0]
    ramp = np.broadcast_to(centers.reshape(-1, *[1] * (len(shape) - 1)), shape).astype(np.float32)
    resized = resize_image(ramp[None], size)
    assert resized.shape == (1, *size)
    assert resized.dtype == np.float32
    expected = ((np.arange(size[0]) + 0.5) / size[0]).reshape(-1, *[1] * (len(size) - 1))
    inner = slice(2, -2)
    assert np.abs(resized[0] - expected)[inner].max() < 0.02
    half = resize_labels((ramp > 0.5).astype(np.uint8) * 3, size)
    assert half.dtype == np.uint8
    assert np.array_equal(half, np.broadcast_to(expected > 0.5, size) * 3)


def test_shrinking_does_not_alias() -> None:
    stripes = np.zeros((1, 8, 128), dtype=np.float32)
    stripes[..., ::2] = 1  # finer than the coarse grid can show: must become an even grey
    assert np.abs(resize_image(stripes, (8, 24))[..., 2:-2] - 0.5).max() < 0.05


def test_labels_come_from_the_nearest_pixel_centre() -> None:
    rows = np.arange(12, dtype=np.uint8)[:, None].repeat(2, axis=1)
    assert resize_labels(rows, (4, 2))[:, 0].tolist() == [1, 4, 7, 10]  # the middle ones of 3 rows each
    assert resize_labels(rows[:4], (8, 2))[:, 1].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
