"""Draw an image of the prepared data under each augmentation alone, and under all of params.yaml, as a PNG."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from llm4seg.config import Config
from llm4seg.config.schema import Augment
from llm4seg.data.augment import augment
from llm4seg.data.augment_draws import COLORS
from llm4seg.data.patch_size import resolve_auto
from llm4seg.data.patches import load_patches
from llm4seg.data.prepared import Prepared
from llm4seg.utils.drawing import PLAIN_TEXT, colors, fullest_slice, outline
from llm4seg.utils.errors import InputError, UserError
from llm4seg.utils.files import replacing
from llm4seg.utils.logs import add_flags, configure

DRAWS = 64  # of which the one that changes the image most is shown: many leave it as it is
COLUMNS, PANEL, TITLE = 5, 2.3, 0.3  # inches
# what is shown of a change that params.yaml switches off, strong enough to be seen; of `elastic`, in sides of the image
SHOWN: dict[str, Any] = {
    "flip": (0,),
    "quarter_turns": True,
    "rotate": 15.0,
    "scale": 0.3,
    "shift": 0.1,
    "elastic": 1 / 16,
    "intensity": 0.25,
    "color": 0.2,
    "noise": 0.3,
    "blur": 1.5,
    "contrast": 0.4,
    "low_resolution": 0.3,
    "gamma": 0.8,
    "gamma_inverted": 0.8,
}
Image = tuple[NDArray[Any], NDArray[Any]]  # (C, *size), and its labels (*size)


def sections(config: Config, data: Prepared) -> dict[str, Augment]:
    """Each augmentation alone, by its parameter and value, and all that params.yaml switches on."""
    given = config.training.augment
    numbers = [name for name, shown in SHOWN.items() if isinstance(shown, float)]
    off = given.model_copy(update={"flip": (), "quarter_turns": False} | dict.fromkeys(numbers, 0.0))
    alone = {}
    for name, shown in SHOWN.items():
        if name == "color" and data.channels != COLORS:
            continue
        if name == "quarter_turns" and len(set(data.size[:2])) > 1:
            continue
        usual = shown * max(data.size) if name == "elastic" else shown
        value = getattr(given, name) or usual
        text = ", ".join(map(str, value)) if name == "flip" else "" if value is True else f"{value:g}"
        alone[f"{name} {text}".strip()] = off.model_copy(update={name: value})
    return alone | {"as in params.yaml": given}


def most_changed(
    image_CS: torch.Tensor, labels_S: torch.Tensor, section: Augment, spacing: Sequence[float] | None = None
) -> Image:
    """Of DRAWS augmented images the one that differs most from the image."""
    found: Image = image_CS.numpy(), labels_S.numpy()
    most = 0.0
    for sample in range(DRAWS):
        given = image_CS[None], labels_S[None].long()
        images, labels = augment(*given, [sample], section, seed=0, epoch=0, spacing=spacing)
        change = float((images[0] - image_CS).abs().mean())
        if change > most:
            most, found = change, (images[0].numpy(), labels[0].numpy())
    return found


def draw(path: Path, images: dict[str, Image], classes: Sequence[str]) -> None:
    """Write the images, with the outlines of their labels, on one scale of gray: that of the first."""
    import matplotlib as mpl  # here: the import takes a second
    from matplotlib.figure import Figure

    slices = {title: fullest_slice(*image) for title, image in images.items()}
    first_CHW = next(iter(slices.values()))[0]
    low, high = np.percentile(first_CHW, [0.5, 99.8])
    rows = -(-len(slices) // COLUMNS)
    height = PANEL * first_CHW.shape[1] / first_CHW.shape[2]
    with mpl.rc_context({**PLAIN_TEXT, "font.size": 9}):
        figure = Figure(figsize=(COLUMNS * PANEL, rows * (height + TITLE)), dpi=72, layout="constrained")
        axes = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
        for axis in axes:
            axis.set_axis_off()
        for axis, (title, (image_CHW, labels_HW)) in zip(axes, slices.items(), strict=False):
            gray = np.moveaxis(image_CHW, 0, -1) if len(image_CHW) == COLORS else image_CHW[0]
            shown = np.clip((gray - low) / max(high - low, 1e-6), 0, 1)
            axis.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            outline(axis, labels_HW, colors(len(classes)), width=0.8)
            axis.set_title(title, fontsize=9)
        with replacing(path) as partial:
            figure.savefig(partial, format="png", metadata={"Software": None})


def draw_augmentations(config: Config, case: str | None, path: Path) -> None:
    """Draw a case of the prepared data, by default the one with most labeled pixels; of a volume at a spacing, a patch
    around a labeled voxel. Raises InputError naming it.
    """
    data = Prepared(config.paths.prepared)
    chosen = case or max(data.cases, key=lambda name: sum(data.cases[name].pixels.values()))
    if chosen not in data.cases:
        raise InputError(f"--case: found {chosen}, allowed: a case of {config.paths.prepared}")
    if data.spacing is None:
        image_CS, labels_S = (tensor.clone() for tensor in data.resampled(chosen))
    else:
        section = config.training.patch.model_copy(update={"share": 1.0, "foreground": "voxel"})
        size = resolve_auto(config, data).input_size
        data = data.for_network(size, data.intensity_of(data.cases))
        (image_CS,), (labels_S,) = load_patches(data, [chosen], [0], section, seed=0, epoch=0)
    images: dict[str, Image] = {chosen: (image_CS.numpy(), labels_S.numpy())}
    for title, changes in sections(config, data).items():
        images[title] = most_changed(image_CS, labels_S, changes, data.spacing)
    draw(path, images, data.classes)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m llm4seg.tools.augmentations",
        description=__doc__,
        epilog="example: python -m llm4seg.tools.augmentations --out augmentations.png",
    )
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="default: %(default)s")
    parser.add_argument("--case", help="default: the case with most labeled pixels")
    parser.add_argument("--out", type=Path, default=Path("augmentations.png"), help="default: %(default)s")
    add_flags(parser)
    arguments = parser.parse_args()
    try:
        configure(arguments.log)
        draw_augmentations(Config.load(arguments.params), arguments.case, arguments.out)
    except UserError as error:
        sys.exit(f"augmentations: {error}")
    print(arguments.out)


if __name__ == "__main__":
    main()
