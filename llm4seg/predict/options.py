"""Options of prediction in words of a command line, and whether they fit a model."""

from collections.abc import Sequence
from pathlib import Path

from llm4seg.config.schema import Augment
from llm4seg.data.augment import OF_A_SIDE, check_turned_mirroring
from llm4seg.data.label_scheme import LabelScheme
from llm4seg.data.preprocessing import Preprocessing
from llm4seg.inference.mirroring import Mirroring, mirroring
from llm4seg.models.saved import trained_augment
from llm4seg.utils.errors import InputError

TRAINED = "trained"  # of --tta: the axes that the models were trained with mirroring


def tta_axes(text: str | None, folders: Sequence[Path]) -> tuple[int, ...]:
    """The axes of `--tta`: none without it (None), `trained`, or as in "0,1". Raises InputError for others.

    `trained`: the axes that `training.augment.flip` of all models mirrored: a network that never saw a mirrored image
    gains nothing by one.
    """
    if text is None:
        return ()
    if text == TRAINED:
        return tuple(sorted(set.intersection(*map(_mirrored, folders))))
    words = text.split(",")
    if not all(word.isdecimal() for word in words) or len(set(words)) < len(words):
        raise InputError(f"--tta: found {text}, allowed: {TRAINED}, or different axes as in 0,1")
    return tuple(map(int, words))


def _mirrored(folder: Path) -> set[int]:
    """The axes along which a model's training mirrored images."""
    augment = trained_augment(folder)
    if augment is None:
        raise InputError(
            f"--tta: found {TRAINED}, but {folder} was converted and does not say; allowed: axes as in 0,1"
        )
    return set(augment.flip)


def postprocess_steps(text: str | None) -> tuple[str, ...]:
    """The steps of `--postprocess`, as in "largest:liver,min:10"; `load` says which of them are none."""
    return tuple(text.split(",")) if text else ()


def checked_mirroring(
    axes: Sequence[int], model: Preprocessing, scheme: LabelScheme, augmented: Sequence[Augment] = ()
) -> Mirroring | None:
    """See `mirroring`; `augmented`: how the networks' training did. Raises InputError for axes that an image has not,
    and where left and right would be confused.
    """
    if wrong := [axis for axis in axes if not 0 <= axis < model.spatial_dims]:
        raise InputError(f"tta: found {wrong[0]}, allowed: 0 to {model.spatial_dims - 1}")
    paired = {label for pair in model.paired for label in pair}
    names = [name for place, name in enumerate(scheme.classes) if name and not set(scheme.covered(place)) & paired]
    astray = [name for name in names if OF_A_SIDE.search(name)]
    if astray and model.left_right_axis in axes:
        raise InputError(
            f"tta: found {[*axes]}, which exchanges left and right, but not {astray[0]}; allowed: other axes, or a "
            "model trained with data.paired"
        )
    sides = {model.left_right_axis} if paired or astray else set()
    for section in augmented:
        check_turned_mirroring(axes, sides, section, model.spatial_dims, "tta")
    return mirroring(axes, model.paired, scheme, "tta")
