"""A study over two data sets of other sizes, channels and classes, in this process; and folders that are none."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from llm4seg.config import Config
from llm4seg.data.prepared import Prepared
from llm4seg.data.split import read_split
from llm4seg.study.data_sets import configs_of_data
from llm4seg.study.runner import named_runs
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import read_json, sha256_file, write_json
from pipelines.data_set import data_set
from pipelines.report import pictures
from pipelines.split import split
from pipelines.study import plan, study
from pipelines.table import main
from tests.finished_run import raw_case, write_cases

ARMS = {"cnn": {"preset": "none"}, "llm": {"preset": "frozen"}}
STUDY = {
    "study.repeats": 1,
    "study.arms": ARMS,
    "study.references": ["cnn"],
    "training.epochs": 1,
    "engine.name": "torch",
    "cluster.launcher": "process",
}


def write_drawn(config: Config, folder: Path) -> Path:
    """A data set of 12 color images of 12 patients at 32 x 48, with three classes; its name is "drawn"."""
    random = np.random.default_rng(0)
    images = [random.integers(0, 4, (32, 48)) for _ in range(12)]
    cases = [raw_case(f"c{n}", labels, np.stack([labels * 60] * 3).astype(np.uint8)) for n, labels in enumerate(images)]
    paths = {"paths.prepared": str(folder / "prepared"), "paths.split": str(folder / "split.json")}
    own = config.override({**paths, "data.size": [32, 48], "split.rule": "group"})
    write_cases(own, cases, ("a", "b", "c"))
    split(own)
    return folder


@pytest.fixture(scope="module")
def data_sets(workspace: Config, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The folders of two data sets; read-only."""
    root = tmp_path_factory.mktemp("sets")
    (root / "params.yaml").write_text(json.dumps(workspace.plain()))
    data_set(root / "params.yaml", root / "phantom", [], {"data.size": [16, 16], "data.phantom.seed": 3})
    return [root / "phantom", write_drawn(workspace, root / "drawn")]


@pytest.fixture
def over_two(config: Config, data_sets: list[Path]) -> Config:
    return config.override({**STUDY, "study.data": [*map(str, data_sets)]})


def test_every_arm_is_trained_on_every_data_set_and_the_result_says_on_which(
    over_two: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study(over_two)
    folder, (phantom, drawn) = over_two.paths.study, over_two.study.data
    table = pd.read_csv(folder / "study.csv")
    for data, place in (("phantom", phantom), ("drawn", drawn)):
        own, tested = table[table["data"] == data], read_split(place / "split.json").test
        assert {arm: {*rows["case"]} for arm, rows in own.groupby("arm")} == {arm: {*tested} for arm in ARMS}
        assert {*own["class"]} == {*Prepared(place / "prepared").classes}
    runs = pd.read_csv(folder / "runs.csv")
    assert runs[["data", "arm"]].to_numpy().tolist() == [
        [data, arm] for data in ("phantom", "drawn") for arm in ("cnn", "llm")
    ]
    summary = read_json(folder / "study.json")
    assert [one["name"] for one in summary["data_sets"]] == ["phantom", "drawn"]
    assert summary["data_sets"][1]["split_sha256"] == sha256_file(drawn / "split.json")
    assert [line.split(":")[0] for line in summary["verdicts"]] == ["on phantom, llm", "on drawn, llm", "llm"]
    assert "over 2 data sets" in summary["verdicts"][2]
    over = pd.read_csv(folder / "over_data.csv")
    of_runs = table.groupby(["data", "arm", "case"])["dice"].mean().groupby(["data", "arm"]).mean().unstack()
    compared = pd.read_csv(folder / "comparisons.csv")
    assert compared["data"].tolist() == ["phantom", "drawn"]
    assert over["difference"].item() == pytest.approx(compared["difference"].mean(), abs=1e-6)
    assert runs.set_index(["data", "arm"])["dice"].to_dict() == pytest.approx(of_runs.stack().to_dict(), abs=2e-6)
    pictures(over_two)
    write_params(over_two, tmp_path)
    capsys.readouterr()
    main([str(folder), "--params", str(tmp_path / "params.yaml")])
    assert capsys.readouterr().out.startswith("| method | phantom | drawn | over data sets |")


def write_params(config: Config, folder: Path) -> None:
    (folder / "params.yaml").write_text(json.dumps(config.plain()))


def test_a_run_is_that_of_a_study_on_its_data_alone(over_two: Config) -> None:
    """Whatever other data sets there are: nothing is trained again for one more."""
    both = named_runs(over_two)
    alone = [named_runs(over_two.override({"study.data": [str(folder)]})) for folder in over_two.study.data]
    assert sorted(run.name for run in both) == sorted(run.name for runs in alone for run in runs)
    assert len({run.name for run in both}) == 4
    folder = over_two.study.data[0]
    paths = {"paths.prepared": str(folder / "prepared"), "paths.split": str(folder / "split.json"), "study.data": []}
    own = named_runs(over_two.override({**paths, "data.size": [16, 16]}))
    assert [run.name for run in own] == [run.name for run in alone[0]]


def test_repeats_and_folds_are_finished_on_all_data_sets_before_the_next(over_two: Config) -> None:
    runs = named_runs(over_two.override({"study.repeats": 2, "study.folds": [0, 1]}))
    assert len({run.name for run in runs}) == len(runs) == 16
    assert [(run.planned.repeat, run.planned.fold, run.planned.data) for run in runs[::2]] == [
        (repeat, fold, data) for repeat, fold in ((0, 0), (1, 1), (0, 1), (1, 0)) for data in ("phantom", "drawn")
    ]
    tested = [{*read_split(run.config.paths.split).test} for run in runs[::2]]
    assert tested[0] & tested[4] == tested[1] & tested[5] == set()  # other folds of one data set
    assert all(case.startswith("c") for part in tested[1::2] for case in part)


def test_models_are_kept_by_data_set(over_two: Config) -> None:
    study(over_two.override({"study.keep": "weights", "study.only": ["cnn"]}))
    models = over_two.paths.study / "models"
    assert sorted(path.parent.relative_to(models).as_posix() for path in models.rglob("model.json")) == [
        "drawn/cnn/seed-0",
        "phantom/cnn/seed-0",
    ]


def test_a_plan_is_of_each_data_set(over_two: Config, capsys: pytest.CaptureFixture[str]) -> None:
    plan(over_two)
    printed = capsys.readouterr().out
    assert [line for line in printed.splitlines() if line.startswith("on ")] == ["on phantom:", "on drawn:"]
    assert printed.count("2 runs, of which 0 have finished") == 2


def copied(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


def without_split(folder: Path) -> None:
    (folder / "split.json").unlink()


def with_another_split(folder: Path) -> None:
    values = read_json(folder / "split.json")
    write_json(folder / "split.json", {**values, "test": ["nobody"]})


def with_another_manifest(folder: Path) -> None:
    write_json(folder / "prepared" / "manifest.json", {"name": "x"})


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (shutil.rmtree, "found no prepared/manifest.json there, allowed: a folder that `python -m pipelines.data_set`"),
        (without_split, "found no split.json there, allowed: a folder that"),
        (with_another_split, "found case nobody in split.json and not in prepared, allowed: a folder that"),
        (with_another_manifest, ".*manifest.json: not a manifest that `prepare` wrote"),
    ],
    ids=["gone", "no split", "another split", "another manifest"],
)
def test_a_folder_that_is_no_data_set_is_named(
    over_two: Config, tmp_path: Path, change: Callable[[Path], Any], found: str
) -> None:
    folder = copied(over_two.study.data[0], tmp_path / "set")
    change(folder)
    with pytest.raises(InputError, match=rf"^study.data: {folder}: {found}"):
        study(over_two.override({"study.data": [str(over_two.study.data[1]), str(folder)]}))


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"training.class_weights": [1, 1, 1]}, "drawn: training.class_weights: found 3 numbers, allowed: 4"),
        ({"training.augment.quarter_turns": True}, r"drawn: params: training.augment.quarter_turns: .* \[32, 48\] is"),
        (
            {"evaluation.postprocess": ["largest:lesion 1"]},
            "drawn: evaluation.postprocess: found the class lesion 1, allowed: a, b, c",
        ),
    ],
    ids=["weights", "turns", "postprocess"],
)
def test_options_that_do_not_go_with_a_data_set_are_refused(
    over_two: Config, changes: dict[str, Any], found: str
) -> None:
    with pytest.raises(InputError, match=f"^study.data: .*{found}"):
        named_runs(over_two.override(changes))


def test_data_sets_of_one_name_are_refused(over_two: Config, tmp_path: Path) -> None:
    folders = [over_two.study.data[0], copied(over_two.study.data[0], tmp_path / "again")]
    with pytest.raises(InputError, match=r"again: found phantom, as .*phantom is, allowed: data sets of different"):
        configs_of_data(over_two.override({"study.data": [*map(str, folders)]}))


def test_the_command_leaves_other_folders_alone(over_two: Config, tmp_path: Path) -> None:
    write_params(over_two, tmp_path)
    with pytest.raises(InputError, match=r"holds no data set, allowed: a new folder, or what this command left"):
        data_set(tmp_path / "params.yaml", tmp_path, [], {})
    prepared = over_two.paths.prepared
    assert prepared.name == "prepared"
    with pytest.raises(InputError, match=r"is where `dvc repro split` writes to, allowed: another folder"):
        data_set(tmp_path / "params.yaml", prepared.parent, [], {})
