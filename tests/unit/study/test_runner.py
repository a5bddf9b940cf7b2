"""What another dataset must have in common with a study's own to be measured by its models."""

from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from llm4seg.cluster.runs import run_name
from llm4seg.config import Config
from llm4seg.data.label_scheme import LabelScheme
from llm4seg.data.prepared import Prepared
from llm4seg.data.split import Split
from llm4seg.datasets.cases import slices
from llm4seg.study import runner as study
from llm4seg.study.arms import PlannedRun
from llm4seg.study.run_store import RunStore
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import write_json
from llm4seg.utils.provenance import MEASURING, code_digest
from pipelines.split import split
from tests.finished_run import ByIntensity, config_at, raw_case, write_cases

OWN: dict[str, Any] = {
    "name": "own",
    "spatial_dims": 2,
    "channels": 1,
    "classes": ("lesion", "cyst"),
    "spacing": None,
    "intensity": "zscore",
    "window": None,
}
OTHER = OWN | {"name": "other"}


def check(config: Config, other: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    config = config.override({"study.other_data": "/other"})
    there = {config.paths.prepared: OWN, Path("/other"): other}
    schemes = {folder: LabelScheme.parse(data) for folder, data in there.items()}
    opened = {folder: SimpleNamespace(**data, scheme=schemes[folder]) for folder, data in there.items()}
    monkeypatch.setattr(study, "Prepared", opened.get)
    study._check_other_data(config)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"channels": 3}, "channels 3, allowed: 1"),
        ({"spacing": (1.0, 1.0, 2.0)}, r"spacing \(1.0, 1.0, 2.0\), allowed: None"),
        ({"intensity": "window", "window": (-100.0, 400.0)}, "intensity window, allowed: zscore"),
        ({"window": (-100.0, 400.0)}, r"window \(-100.0, 400.0\), allowed: None"),
        ({"classes": ("a",)}, "other with the classes a, allowed: another dataset than own, with .* lesion, cyst, in"),
        ({"classes": ("cyst", "lesion")}, "other with the classes cyst, lesion, allowed: .* lesion, cyst, in this"),
        ({"classes": ("lesion", "tumor")}, "other with the classes lesion, tumor, allowed: .* lesion, cyst, in this"),
        ({"name": "own"}, "own with the classes lesion, cyst, allowed: another dataset"),
    ],
)
def test_another_dataset_that_the_models_cannot_take_is_refused(
    config: Config, change: dict[str, Any], found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=f"study.other_data: found {found}"):
        check(config, OTHER | change, monkeypatch)


def test_another_spacing_is_refused_with_what_to_set(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OWN, "spacing", (1.5, 1.25, 2.0))
    message = r"found spacing \(1.0, 1.0, 2.0\), allowed: \(1.5, 1.25, 2.0\); .* -S 'data.spacing=\[1.25, 1.5, 2\]'"
    with pytest.raises(InputError, match=message):
        check(config, OTHER | {"spacing": (1.0, 1.0, 2.0)}, monkeypatch)


def test_a_dataset_from_before_its_intensities_were_written_down_is_taken(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(config, OTHER | {"intensity": None}, monkeypatch)
    check(config, OTHER, monkeypatch)


def test_a_run_is_another_one_where_it_is_measured_otherwise(config: Config) -> None:
    measured: list[dict[str, Any]] = [
        {},
        {"evaluation.overlap": 0.25},
        {"evaluation.nsd_tolerance": 1.0},
        {"evaluation.bootstrap": 300},
        {"evaluation.tta": [1]},
        {"evaluation.postprocess": ["min:3"]},
        {"evaluation.models": ["/other"], "study.keep": "weights"},
    ]
    names = [study._named(PlannedRun("cnn", 0, None), config.override(changes)).name for changes in measured]
    assert len(set(names)) == 5
    assert names[0] == names[3] == names[6]  # intervals are drawn from the same scores; a study tests its own models


def test_without_the_options_a_run_has_the_name_that_it_had_before_there_were_any(config: Config) -> None:
    section = config.evaluation
    sources = [run_name(config), code_digest(*MEASURING), section.nsd_tolerance, section.overlap, None]
    name = study._named(PlannedRun("cnn", 0, None), config).name
    assert name == "run-" + config.digest(extra=str(sources))


def volumes_of(config: Config, shape: tuple[int, ...], names: str) -> None:
    """Prepare volumes, each of its own patient, cut into slices."""
    random = np.random.default_rng(0)
    cases = [raw_case(name, random.integers(0, 2, shape), random.integers(0, 99, (1, *shape))) for name in names]
    write_cases(config, [one for case in cases for one in slices(case)], "a")


@pytest.mark.parametrize(
    ("rule", "reason"),
    [("group", None), ("block", r"\d+ of the 12 slices of \w are in other parts of the split.*"), ("folds", None)],
)
def test_volumes_are_compared_only_where_they_are_whole(tmp_path: Path, rule: str, reason: str | None) -> None:
    changes = {"study.repeats": 1, "study.per": "volume", "study.arms": {"a": {}, "b": {}}, "study.references": ["a"]}
    config = config_at(tmp_path, changes | {"data.size": [16, 16], "split.block": 2, "split.gap": 0})
    config = config.override({"study.folds": [0, 1]} if rule == "folds" else {"split.rule": rule})
    volumes_of(config, (16, 16, 12), "uvwxyz")
    split(config)
    if reason is None:
        study._check_volumes(config, [config.paths.split])
        return
    with pytest.raises(InputError, match=f"^study.per: found volume, allowed: case, since {reason}$"):
        study.named_runs(config)


def test_volumes_of_pictures_are_refused(tmp_path: Path) -> None:
    config = config_at(tmp_path, {"data.size": [16, 16]})
    data = write_cases(config, [raw_case("p", np.eye(16))], "a")
    write_json(config.paths.split, asdict(Split("by hand", 0, (), (), tuple(data.cases), (), ())))
    with pytest.raises(InputError, match=r"study.per: found volume, .* since drawn has no slices of volumes"):
        study._check_volumes(config, [config.paths.split])


def test_a_runs_record_has_its_cases_and_its_volumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_at(tmp_path, {"data.size": [16, 16], "data.intensity": "unit"})
    volumes_of(config, (16, 16, 3), "vw")
    data = Prepared(config.paths.prepared)
    write_json(config.paths.split, asdict(Split("by hand", 0, (), (), tuple(data.cases), (), ())))
    model: Any = ByIntensity([0.0, 0.2])
    model.load_weights = lambda weights: None
    monkeypatch.setattr(study, "final_weights", lambda *about: {})
    monkeypatch.setattr(study, "assemble", lambda *about: model)
    measured = study.evaluate_run(config, "run", torch.device("cpu"))
    assert [(row["case"], row["volume"], row["position"]) for row in measured["rows"][:2]] == [
        ("v-000", "v", 0),
        ("v-001", "v", 1),
    ]
    assert [(row["data"], row["case"], row["group"]) for row in measured["volumes"]] == [
        ("drawn", "v", "v"),
        ("drawn", "w", "w"),
    ]
    outcome: Any = SimpleNamespace(history=[], seconds=1.0)
    study.keep(config, "run", outcome, measured, "abc")
    record = RunStore(config).read("run")
    assert record is not None
    assert [row["dice"] for row in record["volumes"]] == [row["dice"] for row in measured["volumes"]]


def test_checkpoints_that_a_kill_left_of_a_finished_run_are_deleted(config: Config, tmp_path: Path) -> None:
    """Those of an unfinished one stay: it goes on from them."""
    config = config.override({"paths.runs": str(tmp_path / "runs"), "paths.study_runs": str(tmp_path / "store")})
    runs = [study.NamedRun(PlannedRun("cnn", repeat, None), config, f"run-{repeat}") for repeat in range(3)]
    for run in runs:
        (config.paths.runs / study.checkpoints_name(run.name)).mkdir(parents=True)
    store = RunStore(config)
    store.put("run-0", {"name": "run-0", "rows": []})
    store.put("run-1", {"name": "run-1", "error": "it diverged"})
    study.forget_finished(config, runs)
    assert sorted(folder.name for folder in config.paths.runs.iterdir()) == ["study-run-1", "study-run-2"]
