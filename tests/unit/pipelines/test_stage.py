"""What every stage's command line does, seen from outside."""

import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from llm4seg.config import Config
from llm4seg.utils.errors import InputError, StopRequested
from pipelines.stage import run_stage
from tests.import_graph import ROOT

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
COMMANDS = sorted(file.stem for file in (ROOT / "pipelines").glob("*.py") if "    run_stage(" in file.read_text())
PARAMS = ("--params", str(ROOT / "params.yaml"))

STAGE = """
import os, sys, time
from llm4seg.utils.errors import InputError
from pipelines.stage import run_stage

def work(config):
    print("started", flush=True)
    {work}

run_stage("toy", "A toy.", work)
"""


def start(work: str) -> "subprocess.Popen[str]":
    """A stage in a process of its own."""
    command = [sys.executable, "-c", STAGE.format(work=work)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


Finish = Callable[..., tuple[int, str]]


@pytest.fixture
def finish(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Finish]:
    """Runs a stage in this process; returns its exit status and what it printed on stderr."""

    def run(work: Callable[[Config], Any], *arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["toy", *(arguments or PARAMS)])
        try:
            run_stage("toy", "A toy.", work)
        except SystemExit as end:
            if isinstance(end.code, str):  # Python prints it and exits with 1
                return 1, f"{end.code}\n"
            return int(end.code or 0), capsys.readouterr().err
        return 0, capsys.readouterr().err

    handler = signal.getsignal(signal.SIGTERM)
    yield run
    signal.signal(signal.SIGTERM, handler)


def raising(error: BaseException) -> Callable[[Config], None]:
    def work(config: Config) -> None:
        raise error

    return work


def test_every_stage_of_dvc_has_a_command() -> None:
    assert set(STAGES) <= set(COMMANDS)
    assert {stage["cmd"] for stage in STAGES.values()} == {f"python -m pipelines.{name}" for name in STAGES}


def test_help_shows_an_example(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    without = []
    for name in COMMANDS:
        monkeypatch.setattr(sys, "argv", [name, "--help"])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / "pipelines" / f"{name}.py"), run_name="__main__")
        shown = capsys.readouterr().out
        wanted = [f"usage: python -m pipelines.{name}", f"example: python -m pipelines.{name}"]
        if end.value.code or not all(line in shown for line in wanted) or ("dvc repro" in shown) != (name in STAGES):
            without.append(name)
    assert without == []


def test_a_good_end(finish: Finish) -> None:
    assert finish(lambda config: None) == (0, "")


def test_bad_input_is_one_line(finish: Finish) -> None:
    expected = (1, "toy: mask.png: found 7, allowed: 0 and 255\n")
    assert finish(raising(InputError("mask.png: found 7, allowed: 0 and 255"))) == expected
    process = start("raise InputError('mask.png: found 7, allowed: 0 and 255')")
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == expected


def test_a_bad_parameter_is_one_line_and_nothing_starts(finish: Finish, tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text((ROOT / "params.yaml").read_text().replace("epochs: ", "epochs: -", 1))
    code, errors = finish(raising(AssertionError("started")), "--params", str(params))
    assert code == 1
    assert errors.startswith(f"toy: {params}: training.epochs: found -")
    assert errors.count("\n") == 1


def test_an_output_that_dvc_will_refuse_is_refused_before_the_work(
    finish: Finish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["paths"] = {name: str(ROOT / path) for name, path in values["paths"].items()}
    (tmp_path / "other disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "other disk")
    values["paths"]["prepared"] = str(tmp_path / "link" / "prepared")
    params = tmp_path / "params.yaml"
    params.write_text(yaml.safe_dump(values))
    assert finish(lambda config: None, "--params", str(params)) == (0, "")  # by hand, it may be anywhere
    monkeypatch.setenv("DVC_STAGE", "prepare")
    assert finish(lambda config: None) == (0, "")
    code, errors = finish(raising(AssertionError("started")), "--params", str(params))
    assert code == 1
    assert errors.startswith(f"toy: paths.prepared: found {tmp_path}/link/prepared, allowed: a path in {ROOT}, outside")


def test_a_run_that_was_asked_to_stop_is_one_line_and_exits_143(finish: Finish) -> None:
    assert finish(raising(StopRequested("run it again"))) == (143, "toy: run it again\n")


def test_a_full_disk_is_one_line(finish: Finish) -> None:
    def work(config: Config) -> None:
        Path("/dev/full").write_text("x" * 100_000)

    assert finish(work) == (1, "toy: [Errno 28] No space left on device\n")


def test_the_traceback_is_there_for_those_who_ask(finish: Finish, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM4SEG_TRACEBACK", "1")
    with pytest.raises(InputError, match="why"):
        finish(raising(InputError("why")))


def test_our_own_mistakes_keep_their_traceback(finish: Finish) -> None:
    with pytest.raises(KeyError, match="ours"):
        finish(raising(KeyError("ours")))


def test_an_exit_that_is_not_ours_is_no_good_end(finish: Finish) -> None:
    """Ray answers Ctrl-C with sys.exit(0); DVC would take what is there for this run's outputs."""
    assert finish(raising(SystemExit(0))) == (130, "toy: interrupted; the last good outputs are untouched\n")


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
