"""`data.classes` of datasets that have classes of their own: which of these are kept, and which become one."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from llm4seg.config.schema.data import BACKGROUND, Classes
from llm4seg.datasets.cases import Dataset
from llm4seg.utils.errors import InputError


def label_of(classes: Classes | Mapping[str, Sequence[str]], own: Sequence[str]) -> dict[str, int]:
    """The label of each listed class of a dataset, from 1 in the order of `classes`; 0 under `background`.

    Raises InputError for a name that is not among the dataset's `own`, and for one that stands twice.
    """
    labels: dict[str, int] = {}
    kept = [name for name in classes if name != BACKGROUND]
    for name, values in classes.items():
        for value in values:
            if value not in own or value in labels:
                how = " twice, allowed: once" if value in labels else f", allowed: {', '.join(own)}; or null"
                raise InputError(f"data.classes.{name}: found {value!r}{how}")
            labels[str(value)] = 0 if name == BACKGROUND else kept.index(name) + 1
    return labels


def with_classes(dataset: Dataset, classes: Classes | None) -> Dataset:
    """The dataset with its classes chosen and merged by `data.classes`; what is not listed becomes background."""
    if classes is None:
        return dataset
    labels = label_of(classes, dataset.classes)
    table = np.array([0, *(labels.get(name, 0) for name in dataset.classes)], dtype=np.uint8)
    return replace(
        dataset,
        classes=tuple(name for name in classes if name != BACKGROUND),
        cases=(replace(case, labels=table[case.labels]) for case in dataset.cases),
    )
