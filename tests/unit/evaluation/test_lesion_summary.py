"""Lesion-wise scores over cases, against numbers worked out by hand and a bootstrap of its own."""

import math

import numpy as np
import pytest

from llm4seg.config.schema import Evaluation
from llm4seg.evaluation.lesion_summary import summarize_lesions
from llm4seg.objectives.metrics import Row

SECTION = Evaluation(
    models=None, tta=(), postprocess=(), overlap=0.5, nsd_tolerance=1.0, bootstrap=4000, confidence=0.95, seed=0
)


def row(case: str, lesions: int, found: int, false: int, error: float, *, name: str = "a", group: str = "") -> Row:
    counts = {"lesions": lesions, "predicted_lesions": found + false, "found_lesions": found, "false_lesions": false}
    return {"case": case, "group": group or case, "class": name, **counts, "volume_error": error}


def test_lesions_are_pooled_and_false_ones_are_a_case() -> None:
    """Case u has 8 lesions, v two, w none; the mean of their sensitivities, 0.375, is not what is reported."""
    rows = [row("u", 8, 6, 1, 0.5), row("v", 2, 0, 0, -1.0), row("w", 0, 0, 3, math.nan)]
    found = summarize_lesions(rows, SECTION)
    assert (found["lesions"], found["predicted_lesions"], found["found_lesions"], found["false_lesions"]) == (
        10,
        10,
        6,
        4,
    )
    assert found["sensitivity"] == {"mean": 0.6, "low": None, "high": None, "n": 10}
    assert (found["false_per_case"]["mean"], found["false_per_case"]["n"]) == (pytest.approx(4 / 3, abs=1e-6), 3)
    assert (found["volume_error"]["mean"], found["volume_error"]["n"]) == (-0.25, 2)
    assert found["absolute_volume_error"]["mean"] == 0.75
    assert found["classes"] == {"a": {name: value for name, value in found.items() if name != "classes"}}


def test_all_classes_together_add_lesions_and_false_ones() -> None:
    rows = [row("u", 3, 3, 1, 0.0), row("u", 1, 0, 2, 0.4, name="b"), row("v", 0, 0, 0, math.nan)]
    rows.append(row("v", 2, 1, 0, -0.2, name="b"))
    found = summarize_lesions(rows, SECTION)
    assert found["sensitivity"]["mean"] == pytest.approx(4 / 6, abs=1e-6)
    assert found["false_per_case"]["mean"] == 1.5
    assert found["volume_error"]["mean"] == pytest.approx((0.2 - 0.2) / 2, abs=1e-6)
    assert [found["classes"][name]["sensitivity"]["mean"] for name in "ab"] == [1.0, pytest.approx(1 / 3, abs=1e-6)]


def test_without_a_lesion_there_is_no_sensitivity() -> None:
    found = summarize_lesions([row("u", 0, 0, 2, math.nan)], SECTION)
    assert found["sensitivity"] == {"mean": None, "low": None, "high": None, "n": 0}
    assert found["volume_error"]["mean"] is None
    assert found["false_per_case"]["mean"] == 2


def test_intervals_resample_groups() -> None:
    """Two cases a group, each with what its group has; groups without a lesion say nothing about sensitivity."""
    random = np.random.default_rng(1)
    lesions = np.array([0, 0, *random.integers(1, 9, 28)])
    found, false = random.binomial(lesions, 0.7), random.poisson(2, 30)
    rows = [
        row(f"c{g}{k}", int(lesions[g]), int(found[g]), int(false[g]), 0.0, group=f"g{g}")
        for g in range(30)
        for k in range(2)
    ]
    summary = summarize_lesions(rows, SECTION)
    drawn = random.integers(2, 30, (20000, 28))
    ends = np.quantile(found[drawn].sum(1) / lesions[drawn].sum(1), [0.025, 0.975])
    assert [summary["sensitivity"][end] for end in ("low", "high")] == pytest.approx(ends, abs=0.02)
    ends = np.quantile(false[random.integers(0, 30, (20000, 30))].mean(1), [0.025, 0.975])
    assert [summary["false_per_case"][end] for end in ("low", "high")] == pytest.approx(ends, abs=0.1)
