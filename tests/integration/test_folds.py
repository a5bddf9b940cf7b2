"""Folds of a study as models: kept, cross-validated, put together as an ensemble, and made again where they lack."""

import json
from pathlib import Path

import numpy as np
import pytest

from llm4seg.config import Config
from llm4seg.data.prepared import Prepared
from llm4seg.data.split import read_split
from llm4seg.evaluation.evaluate import evaluate_cases
from llm4seg.models.saved import load_trained, seen_cases
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import read_json
from pipelines.evaluate import evaluate
from pipelines.study import study

FOLDS = {
    "study.repeats": 1,
    "study.folds": [0, 1],
    "study.only": ["model"],
    "model.bottleneck": "identity",
    "study.references": ["model"],
    "training.epochs": 1,
    "cluster.launcher": "process",
    "engine.name": "torch",
}


@pytest.fixture
def folds(config: Config) -> Config:
    return config.override(FOLDS)


def test_folds_are_kept_as_models_of_one_ensemble(folds: Config, capsys: pytest.CaptureFixture[str]) -> None:
    study(folds)
    assert not (folds.paths.study / "models").exists()
    records = {file.name: json.loads(file.read_bytes()) for file in folds.paths.study_runs.glob("run-*.json")}
    assert len(records) == 2
    capsys.readouterr()

    kept = folds.override({"study.keep": "weights", "evaluation.models": None})
    study(kept)
    assert "2 finished runs have left no model, which study.keep: weights wants: they are" in capsys.readouterr().out
    again = {file.name: json.loads(file.read_bytes()) for file in folds.paths.study_runs.glob("run-*.json")}
    assert {name: run["rows"] for name, run in again.items()} == {name: run["rows"] for name, run in records.items()}
    models = [kept.paths.study / "models" / "model" / f"fold-{fold}-seed-0" for fold in (0, 1)]
    assert sorted(path.name for path in models[0].iterdir()) == ["model.json", "weights.safetensors"]
    assert not list(kept.paths.runs.glob("*"))

    study(kept)  # everything is there
    assert "trained again" not in capsys.readouterr().out
    check_cross_validation(kept, models)
    check_ensemble(kept, models, capsys)


def check_cross_validation(config: Config, models: list[Path]) -> None:
    """The table is that of the kept models, each on the fold that it has not seen."""
    data, scores = Prepared(config.paths.prepared), []
    for fold, folder in enumerate(models):
        (path,) = config.paths.study_runs.glob(f"split-*-{fold}.json")
        split = read_split(path)
        assert seen_cases(folder, data, [*data.cases]) == [
            case for case in data.cases if case in (*split.train, *split.val)
        ]
        model = load_trained(folder, None)
        rows, _ = evaluate_cases(model, data, split.test, config.evaluation)
        for case in split.test:
            known = [row["dice"] for row in rows if row["case"] == case and not np.isnan(row["dice"])]
            scores.append(np.mean(known))
    mean = read_json(config.paths.study / "study.json")["cross_validation"]["rows"][0]
    assert (mean["arm"], mean["class"], mean["n"]) == ("model", None, len(scores))
    assert mean["mean"] == pytest.approx(np.mean(scores), abs=1e-6)


def check_ensemble(config: Config, models: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(config.override({"evaluation.models": [str(path) for path in models], "evaluation.tta": [1]}))
    metrics, data = read_json(config.paths.metrics), Prepared(config.paths.prepared)
    test = read_split(config.paths.split).test
    seen = {case for path in models for case in seen_cases(path, data, test)}
    assert metrics["models"] == {"count": 2, "seen": len(seen)}
    assert len(seen) > 0
    assert set(metrics["gains"]) == {"tta", "ensemble"}
    said, warned = capsys.readouterr()
    assert f"warning: {len(seen)} of {len(test)} test cases were in the training or validation of a model" in warned
    assert "test-time augmentation adds" in said

    with pytest.raises(InputError, match=r"nowhere/model.json: no such file"):
        evaluate(config.override({"evaluation.models": ["/nowhere"]}))
