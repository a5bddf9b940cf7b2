"""The grid of a volume by rules worked out by hand, and resampling against SimpleITK, SciPy and torch."""

import numpy as np
import pytest
import SimpleITK
import torch
from scipy import ndimage

from llm4seg.datasets.resample_volume import resample_image, resample_labels
from llm4seg.datasets.spacing import across_slices, crop_box, grid_shape, target_spacing


def test_the_target_is_the_median_along_each_axis() -> None:
    spacings = [(1.0, 1.0, 1.0), (0.5, 2.0, 1.5), (0.8, 1.0, 3.0)]
    assert target_spacing(spacings, [(90, 90, 60)] * 3) == (0.8, 1.0, 1.5)


@pytest.mark.parametrize(
    ("across", "slices", "expected"),
    [
        ([5.0, 4.0, 6.0, 5.0], 20, 4.3),  # the 10th percentile of 4, 5, 5, 6
        ([5.0, 0.5, 0.4, 5.0, 5.0], 20, 0.80001),  # not finer than the other axes
        ([5.0, 4.0, 6.0, 5.0], 100, 5.0),  # as many slices as rows: isotropic in voxels
        ([2.0, 1.0, 3.0, 2.0], 20, 2.0),  # within three times the other axes
    ],
)
def test_across_coarse_slices_it_is_finer(across: list[float], slices: int, expected: float) -> None:
    target = target_spacing([(0.8, 0.8, step) for step in across], [(250, 250, slices)] * len(across))
    assert target == pytest.approx((0.8, 0.8, expected))


def test_shapes_are_rounded_and_never_empty() -> None:
    assert grid_shape((100, 99, 41), (0.7, 0.7, 5.0), (1.0, 1.4, 2.0)) == (70, 50, 102)
    assert grid_shape((3, 3, 1), (1.0, 1.0, 2.0), (9.0, 1.0, 5.0)) == (1, 3, 1)


@pytest.mark.parametrize(
    ("spacing", "target", "axis"),
    [
        ((0.8, 0.8, 5.0), (1.0, 1.0, 2.0), 2),
        ((1.0, 1.0, 3.0), (1.0, 1.0, 2.0), None),
        ((1.0, 1.0, 1.0), (1.0, 4.0, 1.0), 1),
        ((5.0, 0.8, 0.8), (1.0, 1.0, 9.0), 0),  # the volume's own slices come first
        ((5.0, 5.0, 0.8), (1.0, 1.0, 1.0), None),  # two coarse axes are no slices
    ],
)
def test_slices_lie_across_the_one_coarse_axis(
    spacing: tuple[float, ...], target: tuple[float, ...], axis: int | None
) -> None:
    assert across_slices(spacing, target) == axis


def test_a_crop_keeps_what_is_above_the_minimum() -> None:
    image = np.full((2, 9, 8, 7), -1024, np.int16)
    image[1] = 3
    image[0, 4, 3:6, 2] = -1000
    image[1, 2, 7, 5] = 4
    assert crop_box(image) == ((2, 5), (3, 8), (2, 6))
    assert crop_box(np.zeros((1, 4, 5, 6))) == ((0, 4), (0, 5), (0, 6))


def by_simpleitk(values: np.ndarray, size: tuple[int, ...], kind: int) -> np.ndarray:
    """Another grid of the same field of view; SimpleITK's axes are the other way round."""
    image = SimpleITK.GetImageFromArray(values)
    steps = [length / side for length, side in zip(values.shape, size, strict=True)][::-1]
    resampler = SimpleITK.ResampleImageFilter()
    resampler.SetSize(size[::-1])
    resampler.SetOutputSpacing(steps)
    resampler.SetOutputOrigin([(step - 1) / 2 for step in steps])  # corners meet, centers do not
    resampler.SetInterpolator(kind)
    resampler.UseNearestNeighborExtrapolatorOn()
    return SimpleITK.GetArrayFromImage(resampler.Execute(image))


def inside(values: np.ndarray) -> np.ndarray:
    """Without the border, where SimpleITK extrapolates by other rules."""
    return values[3:-3, 3:-3, 3:-3]


def test_enlarged_images_equal_simpleitks() -> None:
    image = np.random.default_rng(0).normal(100, 30, (2, 12, 11, 10)).astype(np.float32)
    size = (24, 15, 23)
    found = resample_image(image, size, None)
    for channel, values in zip(found, image, strict=True):
        assert np.allclose(inside(channel), inside(by_simpleitk(values, size, SimpleITK.sitkLinear)), atol=1e-3)
    rounded = resample_image(image.astype(np.int16), size, None)
    exact = by_simpleitk(image[0].astype(np.int16).astype(np.float32), size, SimpleITK.sitkLinear)
    assert rounded.dtype == np.int16
    assert np.abs(inside(rounded[0]) - inside(exact)).max() <= 0.5 + 1e-3


def test_shrunk_images_are_smoothed_first() -> None:
    image = np.random.default_rng(1).normal(0, 1, (1, 30, 28, 9)).astype(np.float32)
    size = (10, 20, 9)
    smooth = ndimage.gaussian_filter(image[0].astype(float), ((30 / 10 - 1) / 2, (28 / 20 - 1) / 2, 0), mode="nearest")
    places = [(np.arange(side) + 0.5) * length / side - 0.5 for side, length in zip(size, smooth.shape, strict=True)]
    expected = ndimage.map_coordinates(smooth, np.meshgrid(*places, indexing="ij"), order=1, mode="nearest")
    assert np.allclose(resample_image(image, size, None)[0], expected, atol=1e-5)


@pytest.mark.parametrize("size", [(10, 20, 19), (31, 8, 25), (30, 7, 60)])
@pytest.mark.parametrize("across", [None, 0, 2])
def test_slabs_change_no_bit(monkeypatch: pytest.MonkeyPatch, size: tuple[int, ...], across: int | None) -> None:
    """Whether a volume is resampled at once or a few voxels at a time."""
    image = np.random.default_rng(4).normal(0, 1, (2, 40, 41, 50)).astype(np.float32)
    labels = ndimage.zoom(np.random.default_rng(5).integers(0, 9, (5, 6, 7)), (8, 41 / 6, 50 / 7), order=0)
    labels = labels.astype(np.uint8)
    at_once = resample_image(image, size, across), resample_labels(labels, size, across)
    monkeypatch.setattr("llm4seg.datasets.resample_volume.SLAB", 1)
    assert np.array_equal(resample_image(image, size, across), at_once[0])
    assert np.array_equal(resample_labels(labels, size, across), at_once[1])


def test_across_coarse_slices_the_nearest_is_taken() -> None:
    image = np.random.default_rng(2).normal(0, 1, (1, 8, 8, 4)).astype(np.float32)
    labels = (image[0] > 0).astype(np.uint8)
    found = resample_image(image, (8, 8, 8), across=2)
    assert np.array_equal(found, np.repeat(image, 2, axis=3))
    assert np.array_equal(resample_labels(labels, (8, 8, 8), across=2), np.repeat(labels, 2, axis=2))
    fewer = resample_image(image, (8, 8, 2), across=2)  # of two equally near the upper one, and none is blurred
    assert np.array_equal(fewer, image[..., [1, 3]])


@pytest.mark.parametrize("slices", [3, 4, 6])  # of 12: places on slices, and in the middle of two
def test_of_two_slices_equally_near_images_and_labels_take_simpleitks(slices: int) -> None:
    image = np.broadcast_to(np.arange(12, dtype=np.float32), (4, 4, 12))
    expected = by_simpleitk(image, (4, 4, slices), SimpleITK.sitkNearestNeighbor)
    assert np.array_equal(resample_image(image[None], (4, 4, slices), across=2)[0], expected)
    assert np.array_equal(resample_labels(image.astype(np.uint8), (4, 4, slices), across=2), expected)


@pytest.mark.parametrize("size", [(24, 15, 23), (6, 8, 7), (12, 11, 10), (1, 1, 1)])
def test_labels_are_those_with_the_most_after_linear_interpolation(size: tuple[int, ...]) -> None:
    """Each label's indicator by torch: the label taken has the most, but for the last bits."""
    random = np.random.default_rng(3)
    labels = ndimage.zoom(random.choice([0, 1, 2, 255], (4, 4, 4)), 3, order=0)[:, :11, :10].astype(np.uint8)
    values = np.unique(labels)
    indicators = torch.from_numpy(np.stack([labels == value for value in values])[None].astype(np.float32))
    shares = torch.nn.functional.interpolate(indicators, size, mode="trilinear", align_corners=False)[0].numpy()
    found = resample_labels(labels, size, None)
    taken = np.select([found == value for value in values], list(shares), -1)
    assert (taken > shares.max(axis=0) - 1e-6).all()
    assert np.mean(found == values[shares.argmax(axis=0)]) > 0.95  # where two have equally much, either


def test_labels_go_to_a_finer_grid_and_back() -> None:
    labels = np.zeros((14, 15, 16), np.uint8)
    labels[3:8, 4:9, 5:11], labels[9:12, 2:13, 3:6] = 1, 7
    finer = resample_labels(labels, (28, 45, 32), None)
    assert np.array_equal(resample_labels(finer, labels.shape, None), labels)
