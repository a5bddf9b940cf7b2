"""The elastic deformation: a Gaussian-smoothed field by SciPy, its size in pixels, and that it folds nothing."""

import numpy as np
import pytest
import torch
from scipy.fft import idctn
from scipy.ndimage import gaussian_filter

from llm4seg.data.augment import augment
from llm4seg.data.elastic import FREQUENCIES, SIGMA, deform, draw_displacements, smooth_field
from tests.unit.data.test_augment import STILL


@pytest.mark.parametrize("size", [(64, 48), (40, 32, 24)])
def test_the_field_is_white_noise_that_scipy_smooths(size: tuple[int, ...]) -> None:
    spectrum = np.random.default_rng(5).standard_normal((len(size), *[FREQUENCIES] * len(size)), dtype=np.float32)
    found = smooth_field(torch.from_numpy(spectrum), size).numpy()
    fields = []
    for component in spectrum:
        whole = np.zeros(size)
        whole[tuple(slice(FREQUENCIES) for _ in size)] = component
        noise = idctn(whole, norm="ortho")
        fields.append(gaussian_filter(noise, [SIGMA * side for side in size], mode="reflect", truncate=6))
    expected = np.stack(fields, axis=-1)
    np.testing.assert_allclose(found, expected / np.abs(expected).max(), atol=0.01)
    assert np.abs(found).max() == pytest.approx(1)


def identity(samples: int, size: tuple[int, ...]) -> torch.Tensor:
    """The sampling grid of images that stay where they are."""
    dims = len(size)
    matrix = torch.cat([torch.eye(dims), torch.zeros(dims, 1)], dim=1).expand(samples, -1, -1)
    return torch.nn.functional.affine_grid(matrix, [samples, 1, *size], align_corners=False)


@pytest.mark.parametrize("size", [(64, 32), (48, 48, 12)])
def test_the_displacement_is_in_pixels_of_the_longest_axis(size: tuple[int, ...]) -> None:
    """At most what the parameter says, and not much less in the largest of many draws."""
    grid = identity(200, size)
    moved = (deform(grid, *draw_displacements(range(200), 4.0, size, seed=0, epoch=0)) - grid).flatten(1, -2)
    pixels = moved.abs().amax((1, 2)) * max(size) / 2
    drawn = pixels[pixels > 1e-4]
    assert 20 < len(drawn) < 60
    assert 3.5 < drawn.max() <= 4.001
    assert drawn.min() < 1


@pytest.mark.parametrize("size", [(64, 64), (48, 48, 12)])
def test_a_sixteenth_of_the_side_folds_nothing(size: tuple[int, ...]) -> None:
    """The determinant of the map's derivative stays positive, also across the few slices of an anisotropic volume."""
    sides = torch.tensor(size[::-1], dtype=torch.float64) / 2  # the grid counts its axes from the last one
    for seed in range(60):
        spectrum = np.random.default_rng(seed).standard_normal((len(size), *[FREQUENCIES] * len(size)), np.float32)
        field = smooth_field(torch.from_numpy(spectrum), size).double()
        pixels = (identity(1, size)[0].double() + field * 2 / 16) * sides
        derivatives = [torch.stack(torch.gradient(pixels[..., axis]), -1) for axis in reversed(range(len(size)))]
        assert (torch.linalg.det(torch.stack(derivatives, -2)) > 0).all()


@pytest.mark.parametrize("size", [(48, 64), (32, 48, 40)])
def test_labels_follow_their_image(size: tuple[int, ...]) -> None:
    """In one resampling with the affine map; nearest, so that no label appears that was not there."""
    labels = torch.zeros(16, *size, dtype=torch.int64)
    labels[(slice(None), *(slice(side // 4, 3 * side // 4) for side in size))] = 255
    section = STILL.model_copy(update={"elastic": 4.0, "rotate": 20.0})
    rigid = section.model_copy(update={"elastic": 0.0})
    images, moved = augment(labels[:, None].float(), labels, list(range(16)), section, seed=1, epoch=2)
    _, turned = augment(labels[:, None].float(), labels, list(range(16)), rigid, seed=1, epoch=2)
    bent = (moved != turned).flatten(1).any(1)
    assert 0 < bent.sum() < 10
    assert set(moved.unique().tolist()) == {0, 255}
    assert (moved[images[:, 0] > 250] == 255).all()
    assert (moved[images[:, 0] < 5] == 0).all()
