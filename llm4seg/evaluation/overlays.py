"""Overlays: an image, its reference and a prediction side by side."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from llm4seg.data.label_scheme import LabelScheme
from llm4seg.utils.drawing import PLAIN_TEXT, color_keys, colors, fill, fullest_slice, outline, show_image

WIDTH = 10.5  # inches, of the figure
DPI = 120


def draw_overlay(
    path: Path,
    image_CS: Tensor,
    reference_S: Tensor,
    predicted_S: Tensor,
    scheme: LabelScheme,
    spacing: Sequence[float],
    title: str,
) -> None:
    """Write a PNG: the image; the reference, filled; the prediction, filled, within the reference's outline.

    Axes are (rows, columns) or (rows, columns, slices), `spacing` is along each of them. Of a volume, the slice with
    most reference is drawn (most prediction, if there is no reference).
    """
    import matplotlib as mpl  # here: the import takes a second
    from matplotlib.figure import Figure

    predicted_S, reference_S = scheme.without_ignored(predicted_S, reference_S)
    drawn = (scheme.drawn(labels_S.numpy()) for labels_S in (reference_S, predicted_S))
    image, reference, predicted = fullest_slice(image_CS.numpy(), *drawn)
    height, width = (count * step for count, step in zip(reference.shape, spacing[:2], strict=True))
    panel = WIDTH / 3
    tall = min(max(panel * height / width, panel / 3), panel * 1.6)
    hues = colors(len(scheme.classes))
    with mpl.rc_context(PLAIN_TEXT):
        figure = Figure(figsize=(WIDTH, tall + 0.85), dpi=DPI, layout="constrained")
        axes = figure.subplots(1, 3)
        for axis, name in zip(axes, ("Image", "Reference", "Prediction (filled), reference (lines)"), strict=True):
            show_image(axis, image, spacing[0] / spacing[1])
            axis.set_title(name, fontsize=10, color="#333333")
        fill(axes[1], reference, hues)
        fill(axes[2], predicted, hues)
        outline(axes[1], reference, hues)
        outline(axes[2], reference, hues)
        figure.suptitle(title, fontsize=12, fontweight="bold", x=0.01, ha="left")
        keys = color_keys(scheme.classes, hues)
        figure.legend(handles=keys, loc="outside lower center", ncols=min(len(scheme.classes), 7), frameon=False)
        figure.savefig(path, format="png", metadata={"Software": None})
