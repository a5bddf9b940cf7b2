"""`data.classes`: the label of each value or class that it lists, and the classes of a dataset chosen by it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from llm4seg.config.schema.data import BACKGROUND, IGNORED, Classes, class_names
from llm4seg.data.label_scheme import IGNORE, LabelScheme
from llm4seg.datasets.cases import Dataset, RawCase, SeparateCases
from llm4seg.utils.errors import InputError

Value = int | str


def labels_of_values(classes: Classes, regions: bool) -> dict[Value, int]:
    """The label of each listed value: of its class, from 1 on; of regions, a label for each value, from 1 on.

    0 for what is listed under `background`, IGNORE under `ignore`.
    """
    labels: dict[Value, int] = {}
    labels |= dict.fromkeys(classes.get(BACKGROUND, ()), 0)
    labels |= dict.fromkeys(classes.get(IGNORED, ()), IGNORE)
    names = class_names(classes)
    if not regions:
        for place, name in enumerate(names, start=1):
            labels |= dict.fromkeys(classes[name], place)
        return labels
    values = dict.fromkeys(value for name in names for value in classes[name])
    ordered: list[Value] = [*sorted(value for value in values if isinstance(value, int))]
    ordered += [value for value in values if isinstance(value, str)]
    return labels | {value: place for place, value in enumerate(ordered, start=1)}


def scheme_of(classes: Classes, order: Sequence[Value] | None) -> LabelScheme:
    """What the labels of `labels_of_values` mean; `order`: regions_class_order in values, None without regions.

    Raises InputError for regions of which a perfect prediction would become others.
    """
    names, labels = class_names(classes), labels_of_values(classes, order is not None)
    ignore = bool(classes.get(IGNORED))
    if order is None:
        return LabelScheme(names, ignore=ignore)
    regions = tuple(tuple(labels[value] for value in classes[name]) for name in names)
    try:
        return LabelScheme(names, regions, tuple(labels[value] for value in order), ignore)
    except ValueError as error:
        raise InputError(f"regions_class_order: found {[*order]}: {error}") from None


def label_of(classes: Classes, own: Sequence[str], regions: bool) -> dict[str, int]:
    """`labels_of_values` of classes that list a dataset's `own`; raises InputError for a name that is none of them."""
    for name, values in classes.items():
        for value in values:
            if value not in own:
                raise InputError(f"data.classes.{name}: found {value!r}, allowed: {', '.join(own)}; or null")
    return {str(value): label for value, label in labels_of_values(classes, regions).items()}


def lookup(table: np.ndarray, codes_S: np.ndarray) -> np.ndarray:
    """`table[codes]`, page by page: NumPy makes integers of 8 bytes of what it looks up."""
    if codes_S.ndim < 3:
        return np.asarray(table[codes_S])
    found = np.empty_like(codes_S, table.dtype)
    for page in range(codes_S.shape[-1]):
        found[..., page] = table[codes_S[..., page]]
    return found


def with_classes(dataset: Dataset, classes: Classes | None, order: Sequence[Value] | None = None) -> Dataset:
    """The dataset with its classes chosen and merged by `data.classes`; what is not listed becomes background.

    `order`: `data.regions_class_order`. Raises InputError for a dataset that has regions of its own.
    """
    if classes is None:
        return dataset
    if dataset.scheme.regions:
        raise InputError(f"data.classes: found {', '.join(classes)}, allowed: null, as {dataset.name} has regions")
    labels = label_of(classes, dataset.classes, order is not None)
    table = np.zeros(IGNORE + 1, dtype=np.uint8)
    table[IGNORE] = IGNORE
    table[1 : len(dataset.classes) + 1] = [labels.get(name, 0) for name in dataset.classes]
    cases: Iterable[RawCase] = (_relabeled(case, table) for case in dataset.cases)
    if isinstance(dataset.cases, SeparateCases):
        cases = replace(dataset.cases, read=partial(_read_relabeled, dataset.cases.read, table))
    scheme = scheme_of(classes, order)
    return replace(dataset, cases=cases, scheme=replace(scheme, ignore=scheme.ignore or dataset.scheme.ignore))


def _relabeled(case: RawCase, table: np.ndarray) -> RawCase:
    return replace(case, labels=lookup(table, case.labels))


def _read_relabeled(read: Callable[[Any], Iterable[RawCase]], table: np.ndarray, item: Any) -> Iterator[RawCase]:
    for case in read(item):
        yield _relabeled(case, table)
