"""The picture of a validation case: image, reference and prediction side by side, as the network sees them."""

from collections.abc import Sequence
from pathlib import Path

from llm4seg.data.label_scheme import LabelScheme
from llm4seg.training.live import Snapshot
from llm4seg.utils.drawing import PLAIN_TEXT, color_keys, colors, fill, outline, show_image

WIDTH, DPI = 9.0, 90  # inches, and pixels an inch


def draw_snapshot(path: Path, snapshot: Snapshot, scheme: LabelScheme, spacing: Sequence[float], title: str) -> None:
    """Write a PNG; `spacing`: of rows and columns. What is ignored is drawn as background."""
    import matplotlib as mpl  # here: the import takes a second
    from matplotlib.figure import Figure

    arrays, hues = snapshot.unpack(), colors(len(scheme.classes))
    reference, predicted = (scheme.drawn(arrays[name]) for name in ("reference", "predicted"))
    with mpl.rc_context(PLAIN_TEXT):
        figure = Figure(figsize=(WIDTH, WIDTH / 3 + 0.8), dpi=DPI, layout="constrained")
        axes = figure.subplots(1, 3)
        for axis, name in zip(axes, ("Image", "Reference", "Prediction (filled), reference (lines)"), strict=True):
            show_image(axis, arrays["image"], spacing[0] / spacing[1])
            axis.set_title(name, fontsize=9)
        fill(axes[1], reference, hues)
        fill(axes[2], predicted, hues)
        outline(axes[2], reference, hues)
        figure.suptitle(title, fontsize=11, x=0.01, ha="left")
        keys = color_keys(scheme.classes, hues)
        figure.legend(handles=keys, loc="outside lower center", ncols=min(len(keys), 7), frameon=False)
        figure.savefig(path, format="png", metadata={"Software": None})
