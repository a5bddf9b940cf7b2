"""What every stage's command line does, seen from outside."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.import_graph import ROOT

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
COMMANDS = sorted(file.stem for file in (ROOT / "pipelines").glob("*.py") if "    run_stage(" in file.read_text())

STAGE = """
import os, sys, time
from llm4seg.utils.errors import InputError
from pipelines.stage import run_stage

def work(config):
    print("started", flush=True)
    {work}

run_stage("toy", "A toy.", work)
"""


def start(work: str, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", STAGE.format(work=work), *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(work: str, *arguments: str, **environment: str) -> tuple[int, str]:
    process = start(work, *arguments, **environment)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


def test_every_stage_of_dvc_has_a_command() -> None:
    assert set(STAGES) <= set(COMMANDS)
    assert {stage["cmd"] for stage in STAGES.values()} == {f"python -m pipelines.{name}" for name in STAGES}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_an_example(name: str) -> None:
    command = [sys.executable, "-m", f"pipelines.{name}", "--help"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    assert f"usage: python -m pipelines.{name}" in shown
    assert f"example: python -m pipelines.{name}" in shown
    assert ("dvc repro" in shown) == (name in STAGES)


def test_a_good_end() -> None:
    assert finish("pass") == (0, "")


def test_bad_input_is_one_line() -> None:
    assert finish("raise InputError('mask.png: found 7, allowed: 0 and 255')") == (
        1,
        "toy: mask.png: found 7, allowed: 0 and 255\n",
    )


def test_a_bad_parameter_is_one_line_and_nothing_starts(tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text((ROOT / "params.yaml").read_text().replace("epochs: ", "epochs: -", 1))
    code, errors = finish("pass", "--params", str(params))
    assert code == 1
    assert errors.startswith(f"toy: {params}: training.epochs: found -")
    assert errors.count("\n") == 1


def test_a_run_that_was_asked_to_leave_is_one_line_and_exits_143() -> None:
    left = "from llm4seg.utils.errors import StopRequested; raise StopRequested('run it again')"
    assert finish(left) == (143, "toy: run it again\n")


def test_a_full_disk_is_one_line() -> None:
    code, errors = finish("open('/dev/full', 'w').write('x' * 100_000)")
    assert (code, errors) == (1, "toy: [Errno 28] No space left on device\n")


def test_the_traceback_is_there_for_those_who_ask() -> None:
    code, errors = finish("raise InputError('why')", LLM4SEG_TRACEBACK="1")
    assert code == 1
    assert "Traceback" in errors


def test_our_own_mistakes_keep_their_traceback() -> None:
    code, errors = finish("raise KeyError('ours')")
    assert code == 1
    assert "Traceback" in errors


def test_an_exit_that_is_not_ours_is_no_good_end() -> None:
    """Ray answers Ctrl-C with sys.exit(0); DVC would take what is there for this run's outputs."""
    assert finish("sys.exit(0)") == (130, "toy: interrupted; the last good outputs are untouched\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_stage_cleans_up_and_exits_130(number: signal.Signals, tmp_path: Path) -> None:
    half = tmp_path / "half-written"
    process = start(f"try: os.mkdir({str(half)!r}); time.sleep(60)\n    finally: os.rmdir({str(half)!r})")
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    while not half.exists():
        pass
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "toy: interrupted; the last good outputs are untouched\n")
    assert not half.exists()
