"""Evaluation of a model whose right answers are known."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from llm4seg.config import Config
from llm4seg.data.intensity import Intensity
from llm4seg.data.prepared import Prepared, Unit
from llm4seg.data.split import Split, write_split
from llm4seg.evaluation.evaluate import draw_examples, evaluate, evaluate_cases, examples
from llm4seg.evaluation.results import write_cases
from llm4seg.inference.sliding_window import window_count
from llm4seg.objectives.metrics import Row
from llm4seg.utils.drawing import colors
from llm4seg.utils.errors import InputError
from pipelines.evaluate import write_evaluation
from tests import finished_run as finished
from tests.finished_run import ByIntensity, config_at, raw_case
from tests.lesion_volumes import VOLUMES

LEVELS = [0.0, 0.5, 1.0]  # of the labels in the drawn images, at `unit` intensity
SMALL = {"data.size": [16, 16], "data.intensity": "unit", "evaluation.bootstrap": 100}


def drawn(kind: int) -> np.ndarray:
    """Labels on 16 x 20 pixels: both classes, the second one only at the corner of the first case."""
    labels = np.zeros((16, 20), dtype=int)
    labels[2:9, 3 : 10 + kind] = 1
    labels[11:15, 4:18] = 2
    return labels


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_at(tmp_path, SMALL)


@pytest.fixture
def data(config: Config) -> Prepared:
    return finished.write_cases(config, [raw_case(f"c{k}", drawn(k), group=f"g{k % 2}") for k in range(6)], "ab")


SPLIT = Split("by hand", 0, train=("c0", "c1"), val=("c2",), test=("c3", "c4", "c5"), left_out=(), folds=())


def test_a_right_model_scores_high_at_native_resolution(data: Prepared, config: Config) -> None:
    evaluated = evaluate(ByIntensity(LEVELS), data, SPLIT, config.evaluation)
    assert [(row["case"], row["class"]) for row in evaluated.rows] == [(c, k) for c in SPLIT.test for k in "ab"]
    assert evaluated.summary["dice"]["mean"] > 0.9
    assert evaluated.summary["baseline"]["dice"]["mean"] > 0.8
    assert evaluated.rows[0]["tp"] + evaluated.rows[0]["fn"] == (drawn(3) == 1).sum()
    assert {row["group"] for row in evaluated.rows} == {"g0", "g1"}


def test_a_model_that_sees_nothing_scores_zero(data: Prepared, config: Config) -> None:
    evaluated = evaluate(ByIntensity([0.5, 9.0, 9.0]), data, SPLIT, config.evaluation)
    assert evaluated.summary["dice"]["mean"] == 0
    assert evaluated.summary["precision"]["mean"] is None
    assert evaluated.summary["hd95"]["mean"] == pytest.approx(math.hypot(16, 20), abs=1e-5)
    assert evaluated.summary["baseline"]["dice"]["mean"] > 0.8


def test_the_baseline_is_fitted_on_the_training_part(data: Prepared, config: Config) -> None:
    baseline = evaluate(ByIntensity(LEVELS), data, SPLIT, config.evaluation).summary["baseline"]
    assert 0 < baseline["classes"]["a"]["from"] < 0.5 < baseline["classes"]["a"]["to"] < 1
    swapped = Split("by hand", 0, train=("blank",), val=(), test=("c3",), left_out=(), folds=())
    cases = [raw_case("blank", np.zeros((16, 20), dtype=int)), raw_case("c3", drawn(3))]
    data = finished.write_cases(config, cases, "ab")
    assert evaluate(ByIntensity(LEVELS), data, swapped, config.evaluation).summary["baseline"]["dice"]["mean"] == 0


def test_other_parts_can_be_measured(data: Prepared, config: Config) -> None:
    evaluated = evaluate(ByIntensity(LEVELS), data, SPLIT, config.evaluation, part="val")
    assert {row["case"] for row in evaluated.rows} == {"c2"}
    assert evaluated.summary["part"] == "val"


@pytest.mark.parametrize("part", ["train", "test"])
def test_an_empty_part_is_an_input_error(data: Prepared, config: Config, part: str) -> None:
    empty = replace(SPLIT, **{part: ()})
    with pytest.raises(InputError, match=rf"split\.{part}: found no case"):
        evaluate(ByIntensity(LEVELS), data, empty, config.evaluation)


def test_cases_csv_holds_every_row_and_leaves_nan_empty(data: Prepared, config: Config, tmp_path: Path) -> None:
    evaluated = evaluate(ByIntensity([0.5, 9.0, 9.0]), data, SPLIT, config.evaluation)
    write_cases(tmp_path, evaluated)
    table = pd.read_csv(tmp_path / "cases.csv")
    assert len(table) == 6
    assert table["precision"].isna().all()
    assert table["baseline_dice"].tolist() == pytest.approx(
        [row["dice"] for row in evaluated.threshold_baseline], rel=1e-5
    )
    assert "nan" not in (tmp_path / "cases.csv").read_text().lower()


@pytest.mark.parametrize(
    ("units", "said"),
    [(("mm", "mm"), "mm"), (("px", "px"), "px"), (("px", "mm"), "mm or px")],
    ids=lambda one: str(one),
)
def test_distances_have_the_unit_of_their_cases(tmp_path: Path, units: tuple[Unit, ...], said: str) -> None:
    config = config_at(tmp_path, SMALL)
    cases = [raw_case("c0", drawn(0)), *(raw_case(f"c{k}", drawn(k), unit=unit) for k, unit in enumerate(units, 1))]
    data = finished.write_cases(config, cases, "ab")
    split = replace(SPLIT, train=("c0",), test=("c1", "c2"))
    evaluated = evaluate(ByIntensity(LEVELS), data, split, config.evaluation)
    assert evaluated.summary["distance_unit"] == said
    write_cases(tmp_path, evaluated)
    assert pd.read_csv(tmp_path / "cases.csv")["distance_unit"].tolist() == [unit for unit in units for _ in "ab"]


def dice_rows(dice: dict[str, float]) -> list[Row]:
    return [{"case": case, "group": case, "class": "a", "dice": value} for case, value in dice.items()]


@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.75])
def test_windows_of_volumes_overlap_as_asked_for(tmp_path: Path, overlap: float) -> None:
    changes = VOLUMES | {"data.spacing": [1, 1, 1], "data.intensity": "unit", "data.classes": None}
    config = config_at(tmp_path, changes | {"training.patch.size": [16, 16, 16], "evaluation.overlap": overlap})
    labels = np.zeros((40, 24, 19), dtype=int)
    labels[4:38, 4:20, 4:15] = 1
    data = finished.write_cases(config, [raw_case("c0", labels)], "a").for_network((16, 16, 16), Intensity("unit"))
    model, windows = ByIntensity([0.0, 1.0]), list[int]()
    model.register_forward_hook(lambda module, images, logits: windows.append(len(logits)))
    evaluate_cases(model, data, ["c0"], config.evaluation)
    assert sum(windows) == window_count(data.cases["c0"].on_grid.shape, (16, 16, 16), overlap) > 1


def test_examples_are_best_median_and_worst() -> None:
    rows = dice_rows({"u": 0.2, "v": 0.9, "w": math.nan, "x": 0.5, "y": 0.7, "z": 0.6})
    assert examples(rows) == {"best": ("v", 0.9), "median": ("z", 0.6), "worst": ("u", 0.2)}


def test_few_cases_are_shown_once() -> None:
    assert examples(dice_rows({"u": 0.2})) == {"best": ("u", 0.2)}
    assert examples(dice_rows({"u": 0.2, "v": 0.4})) == {"best": ("v", 0.4), "worst": ("u", 0.2)}
    assert examples(dice_rows({"u": math.nan})) == {}


def test_pictures_show_the_classes_in_their_colors(data: Prepared, config: Config, tmp_path: Path) -> None:
    model = ByIntensity(LEVELS)
    evaluated = evaluate(model, data, SPLIT, config.evaluation)
    draw_examples(model, data, evaluated.rows, config.evaluation, tmp_path / "overlays")
    draw_examples(model, data, evaluated.rows, config.evaluation, tmp_path / "again")
    names = ["best.png", "median.png", "worst.png"]
    assert sorted(path.name for path in (tmp_path / "overlays").iterdir()) == names
    for name in names:
        assert (tmp_path / "overlays" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
        found = {color for _, color in Image.open(tmp_path / "overlays" / name).convert("RGB").getcolors(1 << 20)}
        assert {tuple(bytes.fromhex(hue[1:])) for hue in colors(2)} <= found  # the legend's, at least


def test_a_volume_is_shown_at_its_fullest_slice(tmp_path: Path) -> None:
    config = config_at(tmp_path, SMALL | {"data.spatial_dims": 3, "data.size": [16, 16, 16]})
    labels = np.zeros((16, 20, 5), dtype=int)
    labels[2:12, 3:15, 3], labels[4:6, 4:6, 1] = 1, 1
    cases = [raw_case("c0", labels, spacing=(1.0, 2.0, 5.0)), raw_case("c1", labels, image=None, group="other")]
    data = finished.write_cases(config, cases, "a")
    split = Split("by hand", 0, train=("c1",), val=(), test=("c0",), left_out=(), folds=())
    evaluated = evaluate(ByIntensity([0.0, 1.0]), data, split, config.evaluation)
    assert evaluated.rows[0]["reference_size"] == 124 * 10
    draw_examples(ByIntensity([0.0, 1.0]), data, evaluated.rows, config.evaluation, tmp_path / "overlays")
    width, height = Image.open(tmp_path / "overlays" / "best.png").size
    assert width / height > 3  # 16 x 20 pixels of 1 x 2 mm are wide panels


def test_the_stage_leaves_strict_json(data: Prepared, config: Config) -> None:
    write_split(config.paths.split, SPLIT)
    write_evaluation(config, ByIntensity([0.5, 9.0, 9.0]))
    metrics = json.loads(config.paths.metrics.read_text(), parse_constant=lambda name: pytest.fail(f"found {name}"))
    assert metrics["classes"]["a"]["dice"]["n"] == 3
    first = [config.paths.metrics.read_bytes(), (config.paths.evaluation / "cases.csv").read_bytes()]
    write_evaluation(config, ByIntensity([0.5, 9.0, 9.0]))
    assert [config.paths.metrics.read_bytes(), (config.paths.evaluation / "cases.csv").read_bytes()] == first
