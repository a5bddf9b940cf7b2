"""Effective receptive fields of functions whose gradients are known."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from llm4seg.analysis.receptive_field import central_pixel, contributions, receptive_field, sides

IMAGE_CHW = torch.randn(1, 9, 9, generator=torch.Generator().manual_seed(0))


def box(side: int) -> nn.Conv2d:
    """A mean over a square, as a feature map of two equal channels."""
    layer = nn.Conv2d(1, 2, side, padding=side // 2)
    nn.init.ones_(layer.weight)
    return layer


@pytest.mark.parametrize(("share", "side"), [(1 / 9, 1), (0.5, 3), (1.0, 3)], ids=["a ninth", "half", "all"])
def test_the_field_of_a_box_filter_is_the_box(share: float, side: int) -> None:
    assert receptive_field(box(3), [IMAGE_CHW, IMAGE_CHW + 1], [share]) == {share: side}


def test_the_field_of_two_filters_by_hand() -> None:
    # 3 x 3 twice: weights 1 2 3 2 1 along each axis, of which the middle 3 have (7 / 9)^2 of the whole
    twice = nn.Sequential(box(3), nn.Conv2d(2, 1, 3, padding=1))
    nn.init.ones_(twice[1].weight)
    assert receptive_field(twice, [IMAGE_CHW], [0.6, 0.61, 0.95]) == {0.6: 3, 0.61: 5, 0.95: 5}


def test_contributions_are_summed_over_channels_without_their_signs() -> None:
    layer = nn.Conv2d(2, 1, 1)
    layer.weight = nn.Parameter(torch.tensor([2.0, -3]).reshape(1, 2, 1, 1))
    found, grid = contributions(layer, torch.zeros(2, 3, 5))
    assert grid == (3, 5)
    assert found.nonzero().tolist() == [[1, 2]]
    assert found[1, 2] == 5


def test_a_patch_of_pixels_is_its_own_field_around_its_middle() -> None:
    def patches(image_CHW: Tensor) -> Tensor:
        return functional.avg_pool2d(image_CHW, 4)

    assert central_pixel((4, 4), (16, 16)) == [9.5, 9.5]
    assert receptive_field(patches, [torch.zeros(1, 16, 16)], [0.25, 0.95]) == {0.25: 2, 0.95: 4}


def test_cubes_of_a_volume() -> None:
    mass = torch.zeros(5, 5, 5)
    mass[2, 2, 2], mass[2, 2, 4] = 1, 3
    assert sides(mass, (2, 2, 2), [0.25, 0.26]) == {0.25: 1, 0.26: 5}
