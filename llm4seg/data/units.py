"""Units: cases that stay together in a split, and their stratified assignment to parts."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from llm4seg.data.prepared import Case
from llm4seg.data.stratify import stratify

Ids = tuple[str, ...]
Units = Sequence[Sequence[Case]]


def units_by(cases: Sequence[Case], keys: Sequence[str]) -> list[list[Case]]:
    """Units, by union-find: cases that share a key or an image, directly or through other cases."""
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while leader.setdefault(name, name) != name:
            name = leader[name]
        return name

    for case, key in zip(cases, keys, strict=True):
        leader[find(f"image {case.sha256}")] = find(f"key {key}")
    units = defaultdict(list)
    for case, key in zip(cases, keys, strict=True):
        units[find(f"key {key}")].append(case)
    return list(units.values())


def assign(
    cases: Sequence[Case], classes: Sequence[str], units: Units, shares: Sequence[float], random: np.random.Generator
) -> list[list[Case]]:
    """The cases of each part, in the dataset's order; each part gets its share of the cases and of each class's pixels
    as nearly as whole units allow.
    """
    part_of = stratify(_amounts(units, classes), shares, random)
    where = {case.id: part for unit, part in zip(units, part_of, strict=True) for case in unit}
    return [[case for case in cases if where[case.id] == part] for part in range(len(shares))]


def _amounts(units: Units, classes: Sequence[str]) -> np.ndarray:
    """Cases and pixels of each class in each unit, (units, 1 + classes)."""
    rows = [[len(unit), *(sum(case.pixels[name] for case in unit) for name in classes)] for unit in units]
    return np.array(rows, dtype=float)


def ids_of(cases: Iterable[Case]) -> Ids:
    return tuple(case.id for case in cases)
