"""Colors of classes, and images as they are shown."""

import numpy as np
from skimage.color import deltaE_ciede2000, rgb2lab

from llm4seg.utils.drawing import PALETTE, colors, displayable, fullest_slice


def test_thirteen_classes_are_told_apart_and_then_colors_repeat() -> None:
    rgb = np.array([list(bytes.fromhex(hue[1:])) for hue in PALETTE]) / 255
    lab = rgb2lab(rgb[None])[0]
    apart = deltaE_ciede2000(lab[:, None], lab[None])[~np.eye(len(lab), dtype=bool)]
    assert (len(lab), apart.min() > 15) == (13, True)
    assert colors(15)[13:] == list(PALETTE[:2])


def test_color_images_are_shown_in_color_and_constant_ones_at_all() -> None:
    assert displayable(np.random.default_rng(0).random((3, 5, 4))).shape == (5, 4, 3)
    assert displayable(np.random.default_rng(0).random((2, 5, 4))).shape == (5, 4)
    assert np.isfinite(displayable(np.full((1, 5, 4), 7.0))).all()


def test_a_volume_is_cut_where_most_is_labeled() -> None:
    labels = np.zeros((4, 5, 3), dtype=np.uint8)
    labels[:, :, 1], labels[1, 1, 2] = 2, 1
    image, cut = fullest_slice(np.arange(60).reshape(1, 4, 5, 3), labels)
    assert (image.shape, image[0, 0, 0], set(cut.ravel())) == ((1, 4, 5), 1, {2})
    image, _, other = fullest_slice(np.arange(60).reshape(1, 4, 5, 3), labels * 0, labels)
    assert (image[0, 0, 0], set(other.ravel())) == (1, {2})
