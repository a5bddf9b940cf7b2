"""Overlays of predictions: an image, and beside it the same with its mask drawn on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from llm4seg.data.label_scheme import LabelScheme
from llm4seg.utils.drawing import PLAIN_TEXT, color_keys, colors, fill, fullest_slice, outline, show_image
from llm4seg.utils.files import replacing

WIDTH = 7.5  # inches, of the figure
DPI = 110


def draw_prediction(
    path: Path, image_CS: np.ndarray, labels_S: np.ndarray, scheme: LabelScheme, spacing: Sequence[float] | None
) -> None:
    """Write a PNG, atomically. Axes are (rows, columns[, slices]), `spacing` is along them (None: squares).

    Of a volume, the slice with most of the mask is drawn; where that is empty, the middle one.
    """
    import matplotlib as mpl  # here: the import takes a second
    from matplotlib.figure import Figure

    drawn_S = scheme.drawn(labels_S)
    if labels_S.ndim == 3 and not drawn_S.any():
        middle = slice(labels_S.shape[-1] // 2, labels_S.shape[-1] // 2 + 1)
        image_CS, drawn_S = image_CS[..., middle], drawn_S[..., middle]
    image, labels = fullest_slice(image_CS, drawn_S)
    aspect = 1.0 if spacing is None else spacing[0] / spacing[1]
    height = min(max(WIDTH / 2 * labels.shape[0] * aspect / labels.shape[1], WIDTH / 6), WIDTH)
    hues = colors(len(scheme.classes))
    with mpl.rc_context(PLAIN_TEXT):
        figure = Figure(figsize=(WIDTH, height + 0.5), dpi=DPI, layout="constrained")
        axes = figure.subplots(1, 2)
        for axis in axes:
            show_image(axis, image, aspect)
        fill(axes[1], labels, hues, opacity=0.4)
        outline(axes[1], labels, hues, width=1.0)
        keys = color_keys(scheme.classes, hues)
        figure.legend(handles=keys, loc="outside lower center", ncols=min(len(scheme.classes), 5), frameon=False)
        with replacing(path) as partial:
            figure.savefig(partial, format="png", metadata={"Software": None})
