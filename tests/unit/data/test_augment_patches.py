"""Augmentation of patches: what lies beyond a patch is not known, and slices far apart do not mix."""

import pytest
import torch

from llm4seg.config.schema import Augment
from llm4seg.data.augment import augment
from llm4seg.data.augment_draws import thin_axis
from llm4seg.data.label_scheme import IGNORE
from tests.unit.data.test_augment import STILL

SAMPLES = list(range(16))
EVERYWHERE = {"rotate": 25.0, "scale": 0.3, "shift": 0.1, "elastic": 6.0}


def changed(spacing: tuple[float, ...] | None, **values: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A patch inside an organ: its slices are as bright as their number, all of them labeled."""
    section: Augment = STILL.model_copy(update=values)
    slices = torch.arange(1.0, 13.0).expand(16, 1, 24, 24, 12).clone()
    return augment(slices, torch.ones(16, 24, 24, 12, dtype=torch.int64), SAMPLES, section, 0, 0, spacing=spacing)


def test_beyond_a_patch_labels_are_ignored_and_beyond_an_image_background() -> None:
    _, of_patches = changed((1.0, 1.0, 2.0), **EVERYWHERE)
    _, of_images = changed(None, **EVERYWHERE)
    assert set(of_patches.unique().tolist()) == {1, IGNORE}
    assert set(of_images.unique().tolist()) == {0, 1}
    assert (of_patches == IGNORE).flatten(1).float().mean() > 0.05


def test_an_untouched_patch_ignores_nothing() -> None:
    images, labels = changed((1.0, 1.0, 2.0))
    assert (labels == 1).all()
    assert torch.allclose(images, torch.arange(1.0, 13.0).expand_as(images), atol=1e-5)


@pytest.mark.parametrize("values", [EVERYWHERE, {"low_resolution": 0.3}, {"elastic": 8.0}, {"scale": 0.3}])
def test_slices_far_apart_do_not_mix(values: dict[str, float]) -> None:
    """Each keeps its brightness, however it is turned and zoomed in its plane; closer ones mix."""
    values = values | {"shift": 0.0}
    apart, _ = changed((1.0, 1.0, 4.0), **values)
    assert torch.allclose(apart, torch.arange(1.0, 13.0).expand_as(apart), atol=1e-4)
    close, _ = changed((1.0, 1.0, 1.0), **values)
    assert not torch.allclose(close, torch.arange(1.0, 13.0).expand_as(close), atol=0.1)


@pytest.mark.parametrize(
    ("size", "spacing", "axis"),
    [
        ((96, 96, 96), (0.8, 0.8, 5.0), 2),
        ((96, 96, 96), (0.8, 0.8, 2.0), None),
        ((20, 96, 96), (1.0, 1.0, 1.0), 0),
        ((96, 32, 96), (1.0, 4.0, 1.0), 1),
        ((96, 96, 20), None, None),
    ],
)
def test_the_thin_axis(size: tuple[int, ...], spacing: tuple[float, ...] | None, axis: int | None) -> None:
    assert thin_axis(size, spacing) == axis
