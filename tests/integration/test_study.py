"""A study with the real Ray Tune: every run once, whatever is killed, and the tables that it leaves."""

import json
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
import yaml

from llm4seg.config import Config
from llm4seg.utils.files import read_json
from pipelines.report import pictures
from pipelines.study import so_far, study
from tests.import_graph import ROOT
from tests.training import OFTEN, Training, wait_until

ARMS = {"cnn": {"preset": "none"}, "llm": {"preset": "frozen"}}
DIVERGES = {"optimizer.name": "sgd", "optimizer.lr": 1e30, "optimizer.schedule": "constant"}


class Study(Training):
    """The stage `study` under way."""

    stage = "study"

    @property
    def finished(self) -> dict[str, int]:
        """The runs that it keeps, and when each was written."""
        return {file.name: file.stat().st_mtime_ns for file in self.config.paths.study_runs.glob("run-*.json")}

    def training(self) -> bool:
        """Whether a run has a checkpoint and has not finished."""
        return any(self.config.paths.runs.glob("study-run-*/checkpoint_*/checkpoint.json"))


@pytest.fixture
def studying(config: Config) -> Config:
    changes = {"study.repeats": 2, "study.arms": ARMS, "study.references": ["cnn"], "engine.name": "torch"}
    return config.override(changes)


def test_a_failing_arm_is_recorded_and_later_repeats_run_only_what_is_missing(studying: Config, tmp_path: Path) -> None:
    failing = {"study.arms": {**ARMS, "wild": DIVERGES}, "study.repeats": 1}
    config = studying.override(failing)
    study(config)
    runs = pd.read_csv(config.paths.study / "runs.csv").set_index("arm")
    assert runs["state"].to_dict() == {"cnn": "finished", "llm": "finished", "wild": "failed"}
    assert "lower optimizer.lr" in runs.loc["wild", "error"]
    before = {file.name: file.read_bytes() for file in config.paths.study_runs.glob("run-*.json")}
    study(studying.override({"cluster.launcher": "process"}))
    assert {name: (studying.paths.study_runs / name).read_bytes() for name in before} == before
    table = pd.read_csv(studying.paths.study / "study.csv")
    assert table.groupby(["arm", "repeat"])["case"].nunique().to_dict() == {
        (arm, repeat): 4 for arm in ARMS for repeat in (0, 1)
    }
    assert {"dice", "iou", "nsd", "hd95", "tp", "group", "class", "data", "volume", "position"} <= set(table)
    pictures(studying)
    for picture in ("study-forest.svg", "study-paired.svg"):
        root = ElementTree.parse(studying.paths.pictures / picture).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
    summary = read_json(studying.paths.study / "study.json")
    assert (summary["runs"], summary["finished"], summary["failed"], summary["missing"]) == (4, 4, 0, 0)
    assert len(summary["verdicts"]) == 1
    failed = {f"study-{Path(name).stem}" for name, content in before.items() if b'"error"' in content}
    assert len(failed) == 1
    assert {folder.name for folder in studying.paths.runs.iterdir()} <= failed  # its last checkpoint, if it has one
    alone = studying.override(
        {"cluster.launcher": "process", "study.repeats": 1, "paths.study_runs": str(tmp_path / "a")}
    )
    study(alone)
    for file in alone.paths.study_runs.glob("run-*.json"):  # measured as on Ray, to the bit
        assert read_json(file)["rows"] == json.loads(before[file.name])["rows"]
    so_far(studying.override({"study.repeats": 3}))
    assert read_json(studying.paths.study / "study.json")["missing"] == 2


def test_a_plan_says_what_all_runs_cost_and_find(studying: Config, tmp_path: Path) -> None:
    arms = {"cnn": {"preset": "none"}, "longer": {"training.epochs": 30}}
    config = studying.override({"study.arms": arms, "engine.name": "deepspeed"})
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(config.plain()))
    command = [sys.executable, "-m", "pipelines.study", "--plan", "--params", str(tmp_path / "params.yaml")]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300).stdout
    assert "4 runs, of which 0 have finished" in shown
    assert re.search(r"cnn +2 runs x 3 epochs x +\d+\.\d\d s", shown)
    assert re.search(r"longer +2 runs x 30 epochs x +\d+\.\d\d s", shown)
    assert "2 x 1 paired runs on 4 test cases find no difference, however large: the comparison needs 3 runs" in shown
    assert not config.paths.study_runs.exists()


@pytest.mark.parametrize(
    ("launcher", "seed"), [("process", 0), *(pytest.param("ray", seed, marks=pytest.mark.slow) for seed in (0, 1, 2))]
)
def test_killed_at_any_moment_it_goes_on_with_what_is_missing(
    studying: Config, tmp_path: Path, launcher: str, seed: int
) -> None:
    """SIGKILL to the driver and all its processes, once before and once after the first run has finished."""
    config, draw = studying.override(OFTEN | {"cluster.launcher": launcher}), random.Random(seed)
    first = Study(config, tmp_path)
    wait_until(first.training, f"no run has a checkpoint:\n{first.shown()}")
    time.sleep(draw.uniform(0, 2))
    first.kill()
    second = Study(config, tmp_path)
    wait_until(lambda: second.finished, f"no run has finished:\n{second.shown()}")
    time.sleep(draw.uniform(0, 10))
    second.kill()
    kept = second.finished
    third = Study(config, tmp_path)
    assert third.end() == 0, third.shown()
    assert kept.items() <= third.finished.items(), "a finished run was run again"
    assert len(third.finished) == 4
    assert third.left() == []
    assert not list(config.paths.runs.glob("*"))


@pytest.mark.slow
def test_a_workers_death_costs_its_run_nothing(studying: Config, tmp_path: Path) -> None:
    config = studying.override(OFTEN | {"study.repeats": 1})
    disturbed = Study(config, tmp_path)
    wait_until(disturbed.training, f"no run has a checkpoint:\n{disturbed.shown()}")
    disturbed.actor("StudyTrial").kill()
    assert disturbed.end() == 0, disturbed.shown()
    assert set(pd.read_csv(config.paths.study / "runs.csv")["state"]) == {"finished"}
    alone = config.override({"cluster.launcher": "process", "paths.study_runs": str(tmp_path / "alone")})
    study(alone)
    rows = [
        {file.name: read_json(file)["rows"] for file in one.paths.study_runs.glob("run-*.json")}
        for one in (config, alone)
    ]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("launcher", ["process", pytest.param("ray", marks=pytest.mark.slow)])
def test_sigterm_leaves_with_all_saved(studying: Config, tmp_path: Path, launcher: str) -> None:
    config = studying.override(OFTEN | {"training.epochs": 30, "cluster.launcher": launcher})
    stopped = Study(config, tmp_path)
    wait_until(stopped.training, f"no run has a checkpoint:\n{stopped.shown()}")
    stopped.process.send_signal(signal.SIGTERM)
    assert stopped.end() == 143, stopped.shown()
    assert stopped.shown().splitlines()[-1].startswith("study: finished runs are kept")
    assert stopped.left() == []
    assert stopped.training()
    assert not config.paths.study.exists()
