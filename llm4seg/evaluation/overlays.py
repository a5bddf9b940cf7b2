"""Overlays: an image, its reference and a prediction side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

# Okabe and Ito's palette, made for the common forms of color blindness, ordered for legibility on gray
PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#F0E442", "#D55E00", "#0072B2")
WIDTH = 10.5  # inches, of the figure
DPI = 120


def colors(classes: int) -> list[str]:
    """A color for each class; from the eighth class on, they repeat."""
    return [PALETTE[index % len(PALETTE)] for index in range(classes)]


def fullest_slice(image_CS: Tensor, *labels_S: Tensor) -> tuple[Tensor, ...]:
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
    image = np.moveaxis(image_CHW, 0, -1) if len(image_CHW) == 3 else image_CHW[0]
    low, high = np.percentile(image, [0.5, 99.8])
    return np.clip((image - low) / max(high - low, 1e-6), 0, 1)


def draw_overlay(
    path: Path,
    image_CS: Tensor,
    reference_S: Tensor,
    predicted_S: Tensor,
    classes: Sequence[str],
    spacing: Sequence[float],
    title: str,
) -> None:
    """Write a PNG: the image; the reference, filled; the prediction, filled, within the reference's outline.

    Axes are (rows, columns) or (rows, columns, slices), `spacing` is in mm. Of a volume, the slice with most reference
    is drawn (most prediction, if there is no reference).
    """
    from matplotlib.figure import Figure  # here: the import takes a second

    image_CHW, *masks = fullest_slice(image_CS, reference_S, predicted_S)
    image = displayable(image_CHW.float().numpy())
    reference, predicted = (mask.numpy() for mask in masks)
    heights, widths = spacing[:2]
    panel = WIDTH / 3
    tall = min(max(panel * image.shape[0] * heights / (image.shape[1] * widths), panel / 3), panel * 1.6)
    figure = Figure(figsize=(WIDTH, tall + 0.85), dpi=DPI, layout="constrained")
    axes = figure.subplots(1, 3)
    for axis, name in zip(axes, ("Image", "Reference", "Prediction (filled), reference (lines)"), strict=True):
        axis.imshow(image, cmap="gray", vmin=0, vmax=1, aspect=heights / widths, interpolation="nearest")
        axis.set_title(name, fontsize=10, color="#333333")
        axis.set_axis_off()
    hues = colors(len(classes))
    for label, hue in enumerate(hues, start=1):
        _fill(axes[1], reference == label, hue)
        _outline(axes[1], reference == label, hue)
        _fill(axes[2], predicted == label, hue)
        _outline(axes[2], reference == label, hue)
    figure.suptitle(title, fontsize=12, fontweight="bold", x=0.01, ha="left")
    figure.legend(handles=_keys(classes, hues), loc="outside lower center", ncols=len(classes), frameon=False)
    figure.savefig(path, format="png", metadata={"Software": None})


def _fill(axis: Any, mask_HW: NDArray[Any], hue: str) -> None:
    from matplotlib.colors import to_rgba

    axis.imshow(
        np.where(mask_HW[..., None], to_rgba(hue, 0.55), 0.0), aspect=axis.get_aspect(), interpolation="nearest"
    )


def _outline(axis: Any, mask_HW: NDArray[Any], hue: str) -> None:
    if mask_HW.any() and not mask_HW.all():
        axis.contour(mask_HW, levels=[0.5], colors=[hue], linewidths=1.4)


def _keys(classes: Sequence[str], hues: Sequence[str]) -> list[Any]:
    from matplotlib.patches import Patch

    return [Patch(facecolor=hue, label=name) for name, hue in zip(classes, hues, strict=True)]
