"""Post-processing of masks: the largest piece of a class alone, and no piece below a size.

A piece is a connected component under full connectivity: 8 neighbors in 2-D, 26 in 3-D, as lesions are counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from llm4seg.config.schema import POSTPROCESS
from llm4seg.data.label_scheme import LabelScheme
from llm4seg.objectives.lesions import bounding_box, components
from llm4seg.utils.errors import InputError


@dataclass(frozen=True)
class Step:
    """What is done to some classes, by their places: pieces with fewer pixels than `smallest` become background, or,
    where that is None, all but the largest.
    """

    places: tuple[int, ...]
    smallest: int | None


def parse_steps(steps: Sequence[str], scheme: LabelScheme, where: str = "evaluation.postprocess") -> tuple[Step, ...]:
    """Steps as `evaluation.postprocess` has them: largest:CLASS, min:PIXELS or min:PIXELS:CLASS. Raises InputError."""
    parsed, names = [], [name or f"class {place}" for place, name in enumerate(scheme.classes, start=1)]
    for text in steps:
        match = POSTPROCESS.fullmatch(text)
        if match is None:
            raise InputError(f"{where}: found {text}, allowed: largest:CLASS, min:PIXELS and min:PIXELS:CLASS")
        name = match["one"] or match["of"]
        if name is not None and name not in names:
            raise InputError(f"{where}: found the class {name}, allowed: {', '.join(names)}")
        places = tuple(range(len(names))) if name is None else (names.index(name),)
        parsed.append(Step(places, int(match["size"]) if match["size"] else None))
    return tuple(parsed)


def postprocess(labels_S: Tensor, steps: Sequence[Step], scheme: LabelScheme) -> Tensor:
    """Labels uint8 (*shape) after all steps, one after the other; the input stays as it is.

    Where a piece of a region is removed, other regions stay, but for those inside of it.
    """
    if not steps:
        return labels_S
    result_S = labels_S.clone()
    labels = result_S.numpy()  # the same memory
    for step in steps:
        for place in step.places:
            mask = np.isin(labels, scheme.covered(place))
            box = bounding_box(mask)
            inside, removed = labels[box], _removed(mask[box], step.smallest)
            inside[removed] = _without(inside[removed], place, scheme)
    return result_S


def _removed(mask: np.ndarray, smallest: int | None) -> np.ndarray:
    """The pixels of the pieces of a mask that are too small, or not the largest (of equal ones the first stays)."""
    pieces, _ = components(mask)
    sizes = np.bincount(pieces.ravel(), minlength=1)
    sizes[0] = 0  # what is no piece
    kept = np.arange(len(sizes)) == sizes.argmax() if smallest is None else sizes >= smallest
    return mask & ~kept[pieces]


def _without(values: np.ndarray, place: int, scheme: LabelScheme) -> np.ndarray:
    """Labels of pixels once they are no longer of one class: background, or those of other regions that they are of,
    but for regions inside of that one.
    """
    result = np.zeros_like(values)
    for other, order in enumerate(scheme.regions_class_order):
        if order not in scheme.covered(place):
            result[np.isin(values, scheme.covered(other))] = order
    return result
