"""Features of a study's runs: their names, what is compared, and what is said of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from llm4seg.config import Config
from llm4seg.report.inputs import without
from llm4seg.study import runner as study
from llm4seg.study.arms import PlannedRun
from llm4seg.study.feature_comparisons import COMPARED, compare_features, feature_table, feature_verdicts
from llm4seg.study.feature_similarity import coordinates, similarity_table
from llm4seg.study.results import read
from llm4seg.utils.files import read_json
from pipelines.study import write_results
from tests.import_graph import ROOT
from tests.study_factory import studied

CONFIG = Config.load(ROOT / "params.yaml").override(
    {"study.arms": {"cnn": {}, "llm": {}, "mlp": {}}, "study.references": ["cnn"], "evaluation.bootstrap": 100}
)
MEASURES = ("auroc", "iou_area", "probe")


def with_features(effects: dict[str, float], repeats: int = 5, patients: int = 12, data: str = "drawn") -> Any:
    """Finished runs whose AUROC, and no other measure, lies higher by the arm's effect; `cnn` has no block."""
    random, runs = np.random.default_rng(0), []
    level = random.uniform(0.5, 0.7, (patients, 5))
    for run, record in studied(effects, repeats, patients):
        places = ["encoder"] if run.arm == "cnn" else ["encoder", "decoder_input"]
        classes, tokens = [], []
        for patient in range(patients):
            about = {"data": data, "case": f"p{patient}-0", "group": f"p{patient}", "volume": None, "position": None}
            noise = random.normal(0, 0.02, 5)
            for place in places:
                values = level[patient] + noise
                values[0] += effects[run.arm] if place == places[-1] else -0.4
                scores = dict(zip((*MEASURES, "effective_rank", "lsvr"), values.tolist(), strict=True))
                of_class = {name: scores[name] for name in MEASURES}
                classes.append({**about, "class": "any", "place": place, **of_class})
                classes.append({**about, "class": "cyst", "place": place, **dict.fromkeys(MEASURES)})
                tokens.append({**about, "place": place, **without(scores, *MEASURES)})
        runs.append((run, {**(record or {}), "features": classes, "feature_tokens": tokens}))
    return runs


def test_each_image_of_a_run_is_compared_where_features_enter_the_decoder() -> None:
    table = feature_table(with_features({"cnn": 0.0, "llm": 0.1}, 1, 3), 6)
    assert len(table) == 2 * 3 * len(COMPARED)
    own = table[table["measure"] == "auroc"]
    assert own["score"].min() > 0.4  # nothing of the encoder before a block
    assert set(own["class"]) == {"any"}


def test_an_effect_on_one_measure_is_found_in_that_one_alone() -> None:
    table = feature_table(with_features({"cnn": 0.0, "llm": 0.1, "mlp": 0.0}), 6)
    compared = compare_features(table, CONFIG)
    rows = {(row["arm"], row["measure"]): row for row in compared.to_dict("records")}
    assert list(compared["reference"].unique()) == ["cnn"]
    assert len(rows) == len(compared) == 2 * len(COMPARED)
    effect = rows.pop(("llm", "auroc"))
    assert effect["difference"] == pytest.approx(0.1, abs=0.02)
    assert effect["p_holm"] < 0.01
    assert all(row["p_holm"] > 0.05 for row in rows.values())
    # by hand: the smallest of ten is multiplied by ten
    assert effect["p_holm"] == pytest.approx(10 * effect["p"]) == pytest.approx(10 * compared["p"].min())
    lines = feature_verdicts(compared, 0.95)
    found = [line for line in lines if line.endswith("higher than cnn")]
    assert len(found) == 1
    assert found[0].startswith("llm: AUROC of the activation map of any class +0.")
    assert "95 % interval" in found[0]
    assert "5 paired runs" in found[0]


def test_data_sets_are_compared_apart() -> None:
    """Though their images have the same names."""
    effects = {"one": 0.1, "two": -0.1}
    runs = [run for data, effect in effects.items() for run in with_features({"cnn": 0.0, "llm": effect}, data=data)]
    compared = compare_features(feature_table(runs, 6), CONFIG)
    own = compared[compared["measure"] == "auroc"].set_index("data")["difference"]
    assert own.to_dict() == pytest.approx(effects, abs=0.02)
    assert compared["cases"].eq(12).all()
    lines = [line for line in feature_verdicts(compared, 0.95) if "AUROC" in line]
    assert [line.split(":")[0] for line in lines] == ["on one, llm", "on two, llm"]
    assert [line.rpartition(": ")[2] for line in lines] == ["higher than cnn", "lower than cnn"]


def test_results_are_written_and_read(tmp_path: Path) -> None:
    config = CONFIG.override({"paths.study": str(tmp_path / "study")})
    write_results(config, with_features({"cnn": 0.0, "llm": 0.1, "mlp": 0.0}, 3))
    result = read(tmp_path / "study")
    assert result is not None
    assert len(result.feature_comparisons) == len(result.summary["analysis"]["verdicts"]) == 2 * len(COMPARED)
    assert set(result.features["arm"]) == {"cnn", "llm", "mlp"}


def test_arms_are_as_alike_as_their_images_kernels() -> None:
    """Unbiased CKA by hand, of the kernels of the images' mean tokens without their diagonals (Song et al. 2012)."""
    random = np.random.default_rng(1)
    first = random.normal(size=(9, 5)) + 3
    turned = first @ np.linalg.qr(random.normal(size=(5, 5)))[0] * 2 + 1
    other = first @ random.normal(size=(5, 4)) + 2 * random.normal(size=(9, 4))
    runs = []
    for arm, repeat, means in (("a", 0, first), ("b", 0, turned), ("c", 0, other), ("a", 1, other)):
        rows = [{"coordinates": row} for row in coordinates(torch.from_numpy(means))]
        runs.append((PlannedRun(arm, repeat, None), {"feature_means": rows}))
    found = similarity_table(runs).set_index(["arm", "other"])["cka"]
    assert set(found.index) == {("a", "b"), ("a", "c"), ("b", "c"), ("a", "a")}
    assert found["a", "b"] == pytest.approx(1, abs=1e-5)

    def hsic(one: Any, two: Any) -> float:
        k, m = (part @ part.T * (1 - np.eye(9)) for part in (one, two))
        total = np.trace(k @ m) + k.sum() * m.sum() / (8 * 7) - 2 * (k @ m).sum() / 7
        return float(total / (9 * 6))

    by_hand = hsic(first, other) / (hsic(first, first) * hsic(other, other)) ** 0.5
    assert found["a", "c"] == found["a", "a"] == pytest.approx(by_hand, abs=1e-5)


def test_without_features_a_study_is_what_it_was(tmp_path: Path) -> None:
    config = CONFIG.override({"paths.study": str(tmp_path / "study")})
    write_results(config, studied({"cnn": 0.0, "llm": 0.1, "mlp": 0.0}, 3, 8))
    assert not (tmp_path / "study" / "analysis.csv").exists()
    result = read(tmp_path / "study")
    assert result is not None
    assert "analysis" not in result.summary
    assert result.features.empty


def test_a_run_is_another_one_where_its_features_are_measured_otherwise(config: Config) -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"analysis.shifts": 7, "analysis.enabled": True},
        {"study.analyze": True},
        {"study.analyze": True, "analysis.enabled": True},
        {"study.analyze": True, "analysis.shifts": 7},
        {"study.analyze": True, "evaluation.seed": 1},
        {"study.analyze": True, "split.block": 3},
    ]
    names = [study._named(PlannedRun("cnn", 0, None), config.override(one)).name for one in changes]
    assert names[0] == names[1]  # as before there was an analysis
    assert names[2] == names[3]
    assert len(set(names)) == 5


def test_a_studys_runs_have_their_features_measured(config: Config) -> None:
    from pipelines.study import study as stage

    arms = {"cnn": {"preset": "none"}, "llm": {"preset": "frozen"}}
    here = {"study.repeats": 1, "study.arms": arms, "study.references": ["cnn"], "cluster.launcher": "process"}
    few = {"study.analyze": True, "analysis.shifts": 5, "training.epochs": 1, "engine.name": "torch"}
    stage(config.override(here | few))
    table = pd.read_csv(config.paths.study / "analysis.csv")
    assert set(table["arm"]) == {"cnn", "llm"}
    assert set(table["measure"]) == set(COMPARED)
    compared = pd.read_csv(config.paths.study / "analysis_comparisons.csv")
    assert list(compared["measure"]) == list(COMPARED)
    (alike,) = read_json(config.paths.study / "study.json")["analysis"]["similarity"]
    assert (alike["arm"], alike["other"], alike["pairs"]) == ("cnn", "llm", 1)
