"""Changes of an image's values with given parameters, against NumPy, SciPy and MONAI's own transforms."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from llm4seg.data import intensity_augment as ours

SIZES = [(1, 20, 24), (3, 20, 24), (2, 12, 10, 8)]


def image(size: tuple[int, ...]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return 3 * torch.randn(size, generator=generator) - 1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("inverted", [False, True])
def test_gamma_is_monais(size: tuple[int, ...], inverted: bool) -> None:
    """Channel by channel; MONAI's divides by the population's standard deviation."""
    from monai.transforms import AdjustContrast

    exponents = torch.tensor([0.7, 1.5, 1.1][: size[0]])
    found = ours.adjust_gamma(image(size), exponents, inverted)
    for channel, result, exponent in zip(image(size), found, exponents, strict=True):
        transform = AdjustContrast(float(exponent), invert_image=inverted, retain_stats=True)
        expected: Any = transform(channel[None])[0]
        torch.testing.assert_close(result, torch.as_tensor(expected), atol=1e-4, rtol=1e-4)
        assert result.mean() == pytest.approx(float(channel.mean()), abs=1e-5)
        assert result.std() == pytest.approx(float(channel.std()), rel=1e-5)


def test_an_inverted_gamma_spreads_the_other_end() -> None:
    """A power above 1 flattens what is dark, and that of the negative what is bright."""
    ramp = torch.linspace(0, 1, 64).view(1, 8, 8)
    plain, inverted = (ours.adjust_gamma(ramp, torch.tensor([2.0]), way).flatten().diff() for way in (False, True))
    assert (plain.diff() > 0).all()
    assert (inverted.diff() < 0).all()


@pytest.mark.parametrize("size", SIZES)
def test_contrast_by_numpy(size: tuple[int, ...]) -> None:
    factors = [0.75, 1.25, 1.0][: size[0]]
    found = ours.adjust_contrast(image(size), torch.tensor(factors)).numpy()
    for channel, result, factor in zip(image(size).numpy(), found, factors, strict=True):
        wider = channel.mean() + factor * (channel - channel.mean())
        np.testing.assert_allclose(result, np.clip(wider, channel.min(), channel.max()), atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0])
def test_blur_by_scipy(size: tuple[int, ...], sigma: float) -> None:
    found = ours.gaussian_blur(image(size), sigma).numpy()
    for channel, result in zip(image(size).numpy(), found, strict=True):
        np.testing.assert_allclose(result, gaussian_filter(channel, sigma, mode="nearest", truncate=4), atol=1e-3)


def down_and_up(row: NDArray[Any], zoom: float) -> NDArray[Any]:
    """Each pixel of the small row is the one at its center; between the small row's centers values are linear."""
    few = max(1, round(len(row) * zoom))
    chosen = np.floor((np.arange(few) + 0.5) * len(row) / few).astype(int)
    places = (np.arange(len(row)) + 0.5) * few / len(row) - 0.5
    return np.interp(places, np.arange(few), row[chosen])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("zoom", [0.5, 0.63, 0.01])
def test_low_resolution_by_numpy(size: tuple[int, ...], zoom: float) -> None:
    expected = image(size).numpy()
    for axis in range(1, len(size)):
        expected = np.apply_along_axis(down_and_up, axis, expected, zoom)
    np.testing.assert_allclose(ours.low_resolution(image(size), zoom).numpy(), expected, atol=1e-5)


def test_noise_is_gaussian_and_independent() -> None:
    """Its standard deviation is the one that is drawn first; channels have noise of their own."""
    sigma = np.random.default_rng(3).uniform(0, 0.4)
    noise = (ours.gaussian_noise(image((3, 64, 64)), 0.4, np.random.default_rng(3)) - image((3, 64, 64))).flatten(1)
    assert noise.std(1).tolist() == pytest.approx([sigma] * 3, rel=0.05)
    assert noise.mean(1).abs().max() < 0.05 * sigma + 0.01
    assert (torch.corrcoef(noise) - torch.eye(3)).abs().max() < 0.06
    kurtosis = (noise / noise.std()).pow(4).mean()
    assert kurtosis == pytest.approx(3, abs=0.2)


def test_factors_are_as_often_below_one_as_above() -> None:
    factors = ours._factors(np.random.default_rng(0), 0.7, 1.5, 2000)
    assert (factors >= 0.7).all()
    assert (factors <= 1.5).all()
    assert 900 < int((factors < 1).sum()) < 1100


@pytest.mark.parametrize("name", ours.CHANGES)
def test_constant_and_tiny_images_stay_finite(name: str) -> None:
    for size in ((1, 8, 8), (3, 2, 2), (1, 4, 4, 1)):
        flat = torch.full(size, 2.5)
        for seed in range(8):
            found = ours.CHANGES[name][1](flat.clone(), 0.5, np.random.default_rng(seed))
            assert found.shape == flat.shape
            assert found.isfinite().all()
            if name != "noise":
                torch.testing.assert_close(found, flat)
