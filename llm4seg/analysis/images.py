"""What of a case passes the network at a time: the whole image, or patches of a volume; and each one's masks.

Volumes in patches are measured patch by patch, not put together: the block sees the tokens of one patch at a time, with
positions that begin anew in each, so that a map or a spectrum over several would show where patches end. An image's
value is the mean over its patches.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from llm4seg.data.label_scheme import IGNORE, LabelScheme
from llm4seg.data.prepared import Prepared
from llm4seg.utils.errors import InputError

ANY = "any"  # class: pixels of any class


@dataclass(frozen=True)
class Piece:
    """An image, or a patch of one: the network's input (C, *size) float32 and its labels uint8, at their own shape."""

    image: Tensor
    labels: Tensor


def pieces_of(data: Prepared, case_id: str, foreground: bool = True) -> Iterator[Piece]:
    """The pieces of a case: one, with the labels of the original image; or of a volume the patches that tile it, the
    last along each axis moved back to its border, with the labels on the volume's grid.

    `foreground`: of patches, only those that hold a class; of a volume without any, all.
    """
    if data.spacing is None:
        yield Piece(data.resampled(case_id)[0], data.original(case_id)[1])
        return
    starts = list(product(*map(_starts, data.cases[case_id].on_grid.shape, data.size)))
    known = [start for start in starts if not foreground or _holds_class(data.patch(case_id, start)[1])]
    for start in known or starts:
        image_CS, labels_S = data.patch(case_id, start)
        yield Piece(image_CS, labels_S)


def _starts(side: int, patch: int) -> list[int]:
    """Where tiles begin that cover a side: patches beside each other, the last one up to the end."""
    if side <= patch:
        return [-((patch - side) // 2)]  # centered, as windows are when volumes are predicted
    return [*range(0, side - patch, patch), side - patch]


def _holds_class(labels_S: Tensor) -> bool:
    return bool(((labels_S > 0) & (labels_S != IGNORE)).any())


def chosen_classes(scheme: LabelScheme, names: Sequence[str] | None) -> list[str]:
    """The classes to measure: `analysis.classes`, or all; with several, `any` of them comes first.

    Raises InputError for another name.
    """
    known = [*scheme.classes] if len(scheme.classes) == 1 or ANY in scheme.classes else [ANY, *scheme.classes]
    if names is None:
        return known
    if unknown := [name for name in names if name not in known]:
        raise InputError(f"analysis.classes: found {unknown[0]!r}, allowed: {', '.join(known)}")
    return [*names]


def class_masks(labels_S: Tensor, scheme: LabelScheme, classes: Sequence[str]) -> dict[str, Tensor]:
    """The pixels of each class, boolean (*shape); ignored pixels are of none."""
    masks = dict(zip(scheme.classes, scheme.masks(labels_S), strict=True))
    if ANY in classes and ANY not in masks:
        masks[ANY] = torch.stack([*masks.values()]).any(0)
    return {name: masks[name] for name in classes}
