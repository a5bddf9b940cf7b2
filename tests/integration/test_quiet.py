"""What stages print is ours or DVC's, line by line: nothing that no user can act on, as Ray's own remarks."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from llm4seg.config import Config
from tests.import_graph import ROOT
from tests.project import Project

NUMBER = r"[-+]?\d+(?:\.\d+)?"
EPOCH = rf"epoch +\d+/\d+  loss {NUMBER}  val loss {NUMBER}  val Dice {NUMBER}  (?: *\d+ s left)?"
DVC = [
    r"",
    r"Running stage '\w+':",
    r"> python -m pipelines\.\w+",
    r"(?:Generating|Updating) lock file 'dvc\.lock'",
    r"To track the changes with git, run:",
    r"\tgit add [\w./ ]+",
    r"To enable auto staging, run:",
    r"\tdvc config core\.autostage true",
    r"Use `dvc push` to send your updates to remote storage\.",
    r"Stage '\w+' didn't change, skipping",
]
OURS = [
    r"llama, license: not stated",
    r"phantom: license none: made by this program; cite none",
    r"note: made-up images: they show that the method runs, not that it helps",
    r" +(?:split|search: best trials) *",  # titles of tables
    r"[┏┡└├].*[┓┩┘┤]",
    r"[┃│].*[┃│]",
    r" +\d+ cases in \d+ groups; 0 show the image of an earlier one +",  # captions of tables, wrapped and centered
    r"prepare: a look at the data: outputs/data\.png",
    r"  \d+ groups, those with an equal image kept +",
    r"  together; seed 0; val 0\.2, test 0\.2 of the +",
    r"  cases and of each class's pixels; the rest +",
    r" +train +",
    r"search: off \(search\.trials is 0\); no parameter is overridden",
    r"search: at most \d+ trials of at most \d+ epochs",
    rf"search: \d/\d  trial \d  finished  \d/\d  {NUMBER}  layer \d",
    r"search: best of \d trials: \{'model\.llm\.layer': \d\}",
    r"study: off \(study\.repeats is 0\)",
    r"analyze: off \(analysis\.enabled is false\)",
    rf"study: \d of \d runs: {NUMBER} s of training",
    rf"study: llm: {NUMBER} Dice points against cnn, .*",
    r"study: The \d+ cases are of \d+ patients or volumes, too few to resample: .*",
    r"(?:train|search|study): parameters that differ from the last commit: .*",
    r"train: engine\.name: auto is torch \(workers: 1, engine\.zero: 1\)",
    EPOCH,
    r"report: outputs/report\.html",
    rf"train: {NUMBER} s, of which {NUMBER} s training and {NUMBER} s launch, imports and files",
]


def foreign(output: str) -> list[str]:
    """The lines that no pattern knows."""
    return [line for line in output.splitlines() if not any(re.fullmatch(one, line) for one in [*DVC, *OURS])]


def test_a_repro_prints_only_our_lines_and_dvcs(finished_project: Project) -> None:
    output = finished_project.said("repro")
    assert re.search(EPOCH, output)
    assert foreign(output) == []


def test_a_training_and_a_study_after_a_search_print_only_our_lines_on_ray(project: Project) -> None:
    changes = {
        "cluster.launcher": "ray",
        "search.trials": 2,
        "search.epochs": 1,
        "search.space": {"model.llm.layer": [0, 1]},
        "study.repeats": 1,
        "study.arms": {"cnn": {"preset": "none"}, "llm": {"preset": "frozen"}},
        "study.references": ["cnn"],
    }
    for dotted, value in changes.items():
        project.change(dotted, value)
    project.dvc("repro", "fetch_llm")
    lasts = {"search": "search: best of 2 trials: ", "train": "train: ", "study": "study: 2 of 2 runs: "}
    for stage, last in lasts.items():
        output = project.run(sys.executable, "-m", f"pipelines.{stage}")
        assert last in output
        assert foreign(output) == []


TRAINING = """
import json, sys, torch
from pathlib import Path
from llm4seg.config import Config
from llm4seg.training.run import LocalRun, start_group_of_one
from llm4seg.training.trainer import fit
from llm4seg.utils import logs
logs.configure()
config = Config.parse(json.loads(sys.argv[1]))
start_group_of_one(torch.device("cpu"))
for name in ("auto", "deepspeed"):
    fit(config.override({"engine.name": name}), LocalRun(Path(sys.argv[2], name)))
"""


def test_neither_engine_prints_anything_in_the_process_that_trains(config: Config, tmp_path: Path) -> None:
    """Workers of Ray print where nobody looks; a training in this process would print on the terminal."""
    params = json.dumps(config.override({"training.epochs": 1}).plain())
    command = [sys.executable, "-c", TRAINING, params, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "engine.name: auto is torch (workers: 1, engine.zero: 1)\n"


@pytest.mark.parametrize(
    "line",
    [
        "2026-11-28 23:54:55,683\tWARNING authentication_token_setup.py:85 -- Token authentication is enabled",
        "\x1b[33m(raylet)\x1b[0m WARNING: 8 PYTHON worker processes have been started on node: 0c4e",
        "Trial _trial_0c4e7_00000 completed. Last result: name=run-1",
    ],
)
def test_what_ray_would_print_is_not_ours(line: str) -> None:
    assert foreign(line) == [line]
