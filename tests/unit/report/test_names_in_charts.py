"""Names that users give stand in charts as they are written, also where they look like a formula."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from llm4seg.data.label_scheme import LabelScheme
from llm4seg.data.prepared import Case
from llm4seg.data.split import Split
from llm4seg.evaluation.overlays import draw_overlay
from llm4seg.report.charts import dice_by_case, split_strips
from llm4seg.report.study_charts import forest, paired

NAMES = [r"a$\frac$b", "a$_$", "$x$"]  # two formulas that mathtext refuses, and one that it would draw as an italic x


@pytest.mark.parametrize("name", NAMES)
def test_a_class(name: str) -> None:
    cases = pd.DataFrame({"class": [name] * 3, "dice": [0.1, 0.2, 0.3], "baseline_dice": [0.1, 0.2, 0.3]})
    assert f">{name}<" in dice_by_case(cases, [name])


@pytest.mark.parametrize("name", NAMES)
def test_a_volume(name: str) -> None:
    case = Case("s", name, "f", name, 0, (4, 4), (1.0, 1.0), {"a": 1}, "0")
    split = Split("by hand", 0, train=("s",), val=(), test=(), left_out=(), folds=())
    assert f">{name}<" in str(split_strips(split, {"s": case}))


@pytest.mark.parametrize("name", NAMES)
def test_an_arm_and_its_data(name: str) -> None:
    bounds = dict.fromkeys(("difference", "low", "high", "bootstrap_low", "bootstrap_high", "p_holm"), 0.01)
    rows = pd.DataFrame([{"arm": name, "reference": "cnn", "data": data, **bounds} for data in ("own", name)])
    assert f">{name} against cnn, {name}<" in forest(rows, "dice", 0.05)
    scores = {"data": "own", "case": "c", "group": "c", "class": "a", "repeat": 0, "fold": None, "dice": 0.5}
    table = pd.DataFrame([{"arm": arm, **scores} for arm in (name, "cnn")])
    assert f">{name}<" in paired(table, rows, "dice")


@pytest.mark.parametrize("name", NAMES)
def test_a_case_and_a_class_in_an_overlay(name: str, tmp_path: Path) -> None:
    labels = torch.ones(8, 8, dtype=torch.uint8)
    draw_overlay(tmp_path / "overlay.png", torch.rand(1, 8, 8), labels, labels, LabelScheme((name,)), (1.0, 1.0), name)
    assert (tmp_path / "overlay.png").is_file()
