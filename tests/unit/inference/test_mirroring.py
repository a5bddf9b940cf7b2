"""Test-time augmentation by hand: every mirroring once, turned back, and the labels of a side exchanged."""

from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from llm4seg.data.label_scheme import LabelScheme
from llm4seg.inference.grid_logits import NetworkInput
from llm4seg.inference.mirroring import mirroring
from llm4seg.inference.predictor import Predictor, network_logits
from llm4seg.utils.errors import InputError

SIDES = LabelScheme(("left kidney", "right kidney", "spleen"))
REGIONS = LabelScheme(("both", "left", "right"), ((1, 2), (1,), (2,)), (1, 1, 2))


class Lopsided(nn.Module):
    """A convolution of random weights, which mirrored images do not pass as others do."""

    def __init__(self, channels: int, dims: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = (nn.Conv2d if dims == 2 else nn.Conv3d)(1, channels, 3, padding=1)

    def forward(self, images_NCS: Tensor) -> Tensor:
        logits: Tensor = self.convolution(images_NCS)
        return logits


def by_hand(
    network: nn.Module, image: np.ndarray, axes: tuple[int, ...], side: int | None, order: list[int]
) -> np.ndarray:
    """The mean over all mirrorings of an image (*S), by NumPy."""
    total = np.zeros(1)
    for flips in product([False, True], repeat=len(axes)):
        along = tuple(axis for axis, flip in zip(axes, flips, strict=True) if flip)
        mirrored = np.flip(image, along).copy()
        with torch.no_grad():
            logits = network(torch.from_numpy(mirrored)[None, None])[0].numpy()
        back = np.flip(logits, tuple(axis + 1 for axis in along))
        total = total + (back[order] if side in along else back)
    return total / 2 ** len(axes)


@pytest.mark.parametrize("left_right", [1, 0, None])
@pytest.mark.parametrize(
    ("axes", "scheme", "order"),
    [((1,), SIDES, [0, 2, 1, 3]), ((0, 1), SIDES, [0, 2, 1, 3]), ((1, 0), REGIONS, [0, 2, 1])],
)
def test_logits_are_the_mean_over_all_mirrorings(
    axes: tuple[int, ...], scheme: LabelScheme, order: list[int], left_right: int | None
) -> None:
    image = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
    network = Lopsided(len(order))
    read = NetworkInput(torch.from_numpy(image)[None], image.shape, left_right=left_right)
    tta = mirroring(axes, [(1, 2)], scheme)
    assert tta is not None
    (found,) = network_logits(tta.of(network, left_right), [read])
    expected = by_hand(network, image, axes, left_right, order)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    predictor = Predictor([network], scheme, tta=tta)
    if not scheme.regions:
        assert np.array_equal(predictor.labels([read]).numpy(), expected.argmax(axis=0))


def test_each_window_of_a_volume_is_mirrored() -> None:
    """One window as large as the volume is the volume."""
    image = np.random.default_rng(1).normal(size=(4, 6, 8)).astype(np.float32)
    network = Lopsided(2, 3)
    tta = mirroring((0, 1, 2), [], LabelScheme(("a",)))
    assert tta is not None
    read = NetworkInput(torch.from_numpy(image)[None], image.shape, patch=image.shape)
    (found,) = network_logits(tta.of(network, 1), [read])
    np.testing.assert_allclose(found.numpy(), by_hand(network, image, (0, 1, 2), None, []), atol=1e-5)


def test_a_region_without_a_mirror_image_is_refused() -> None:
    with pytest.raises(InputError, match=r"evaluation.tta: found \[1\], .* mirror image of left \(data.paired\)"):
        mirroring([1], [(1, 3)], LabelScheme(("left", "rest"), ((1,), (2, 3)), (1, 2)))
