"""`data.classes`: classes of a dataset chosen and merged."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm4seg.datasets.cases import Dataset
from llm4seg.datasets.registry import open_dataset
from llm4seg.utils.errors import InputError
from tests.tiny import data_section


def opened(tmp_path: Path, classes: dict[str, Any] | None) -> Dataset:
    """The phantom's three kinds of lesion, by these classes."""
    section = data_section(
        tmp_path, dataset="phantom", classes=classes, **{"phantom.classes": 3, "phantom.size": [32, 32]}
    )
    return open_dataset(section, tmp_path)


def test_classes_are_chosen_and_merged(tmp_path: Path) -> None:
    own = opened(tmp_path, None)
    assert own.classes == ("lesion 1", "lesion 2", "lesion 3")
    merged = opened(tmp_path, {"bright": ["lesion 3"], "other": ["lesion 2", "lesion 1"]})
    chosen = opened(tmp_path, {"background": ["lesion 1"], "bright": ["lesion 3"]})
    assert (merged.classes, chosen.classes) == (("bright", "other"), ("bright",))
    for case, one, another in zip(own.cases, merged.cases, chosen.cases, strict=True):
        assert np.array_equal(one.labels, np.array([0, 2, 2, 1])[case.labels])
        assert np.array_equal(another.labels, case.labels == 3)
        assert one.labels.dtype == np.uint8


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"a": ["cyst"]}, "data.classes.a: found 'cyst', allowed: lesion 1, lesion 2, lesion 3; or null"),
        ({"a": [255]}, "data.classes.a: found 255, allowed: lesion 1, lesion 2, lesion 3; or null"),
        (
            {"a": ["lesion 1"], "b": ["lesion 1"]},
            "override: data: classes: found 'lesion 1' under a and b, allowed: under one; for regions, which overlap, "
            "set regions_class_order: a value of each, which is written for it",
        ),
    ],
)
def test_a_class_that_the_dataset_has_not_is_refused(tmp_path: Path, classes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as raised:
        opened(tmp_path, classes)
    assert str(raised.value) == message
