"""Masks drawn on images, with matplotlib: colors of classes, fills and outlines; and text without mathtext."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Okabe and Ito's palette, made for the common forms of color blindness, ordered for legibility on gray; the other six
# are as far from these and from each other by CIEDE2000, for normal, protan and deutan eyes, as these seven are
PALETTE = (
    *("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#F0E442", "#D55E00", "#0072B2"),
    *("#AA0033", "#66FFEE", "#AADD99", "#884477", "#8877FF", "#FF2266"),
)
# rcParams of every figure: a `$` in the name of a class, case or file is a dollar sign, not the start of a formula
PLAIN_TEXT: dict[Any, Any] = {"text.parse_math": False, "text.usetex": False}


def colors(classes: int) -> list[str]:
    """A color for each class; from the fourteenth class on, they repeat."""
    return [PALETTE[index % len(PALETTE)] for index in range(classes)]


def fullest_slice(image_CS: NDArray[Any], *labels_S: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """Image and labels as (rows, columns): of volumes (rows, columns, slices), the slice with most labeled pixels.

    The first labels decide; where they are empty, the next ones do.
    """
    if image_CS.ndim == 3:
        return image_CS, *labels_S
    decisive = next((labels for labels in labels_S if labels.any()), labels_S[0])
    position = int((decisive > 0).sum((0, 1)).argmax())
    return image_CS[..., position], *(labels[..., position] for labels in labels_S)


def displayable(image_CHW: NDArray[Any]) -> NDArray[Any]:
    """An image for imshow: color (H, W, 3) of three channels, else the first (H, W); 0 to 1, outliers clipped."""
    image = (np.moveaxis(image_CHW, 0, -1) if len(image_CHW) == 3 else image_CHW[0]).astype(np.float32)
    low, high = np.percentile(image, [0.5, 99.8])
    return np.clip((image - low) / max(high - low, 1e-6), 0, 1)


def show_image(axis: Any, image_CHW: NDArray[Any], aspect: float) -> None:
    """Draw an image without axes. `aspect`: a pixel's height by its width."""
    axis.imshow(displayable(image_CHW), cmap="gray", vmin=0, vmax=1, aspect=aspect, interpolation="nearest")
    axis.set_axis_off()


def fill(axis: Any, labels_HW: NDArray[Any], hues: Sequence[str], opacity: float = 0.55) -> None:
    """Fill the pixels of label k + 1 with the k-th color, over an image."""
    from matplotlib.colors import to_rgba  # here: the import takes a second

    table = np.array([(0.0, 0.0, 0.0, 0.0), *(to_rgba(hue, opacity) for hue in hues)])
    axis.imshow(table[labels_HW], aspect=axis.get_aspect(), interpolation="nearest")


def outline(axis: Any, labels_HW: NDArray[Any], hues: Sequence[str], width: float = 1.4) -> None:
    """Draw the outline of label k + 1 in the k-th color, `width` points wide."""
    for label, hue in enumerate(hues, start=1):
        mask = labels_HW == label
        if mask.any() and not mask.all() and min(mask.shape) > 1:  # a contour needs two pixels
            axis.contour(mask, levels=[0.5], colors=[hue], linewidths=width)


def color_keys(classes: Sequence[str], hues: Sequence[str]) -> list[Any]:
    """The legend's handles."""
    from matplotlib.patches import Patch

    return [Patch(facecolor=hue, label=name) for name, hue in zip(classes, hues, strict=True)]
