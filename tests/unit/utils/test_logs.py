"""What commands print: -q, -v and LLM4SEG_LOG, in their own process and in those that they start."""

import argparse
import io
import logging
import os
import re
import subprocess
import sys
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console
from tqdm import tqdm

from llm4seg.cluster.progress import EpochPrinter
from llm4seg.cluster.session import _cluster_options
from llm4seg.config import Config
from llm4seg.data.prepared import Prepared
from llm4seg.evaluation.evaluate import evaluate_cases
from llm4seg.training.live import Step
from llm4seg.training.trainer import assemble
from llm4seg.utils import logs
from llm4seg.utils.errors import InputError
from llm4seg.utils.processes import in_processes
from pipelines import split as split_stage
from tests.import_graph import ROOT

TOLD = logging.getLogger("llm4seg.some.module")
ROW = {"epoch": 1, "train_loss": 0.5, "val_loss": 0.4, "val_dice": 0.25, "lr": 0.1}
DEBUG = r"(?m)^\d\d:\d\d:\d\d\.\d{3} llm4seg\.[\w.]+: .+$"
LIBRARY = """
import logging, llm4seg
from llm4seg.utils.logs import PACKAGE
print([type(one).__name__ for one in PACKAGE.handlers], PACKAGE.level, PACKAGE.propagate, logging.root.handlers)
import llm4seg.runtime.device
logging.getLogger("llm4seg.runtime.device").warning("unseen")
logging.basicConfig(level="INFO", format="%(name)s says %(message)s", stream=__import__("sys").stdout)
logging.getLogger("llm4seg.runtime.device").warning("seen")
"""


def tell_all() -> None:
    TOLD.debug("a detail of %d", 7)
    TOLD.info("train: as it goes, 100%")
    TOLD.warning("warning: odd")
    TOLD.error("broken")


@pytest.mark.parametrize("level", ["quiet", "info", "debug"])
def test_each_level_shows_its_lines_on_the_stream_of_each(level: str, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(level)
    tell_all()
    out, err = capsys.readouterr()
    assert out == ("" if level == "quiet" else "train: as it goes, 100%\n")
    *details, warned, failed = err.splitlines()
    assert (warned, failed) == ("warning: odd", "broken")
    assert len(details) == (level == "debug")
    assert all(re.fullmatch(DEBUG, line) and line.endswith("llm4seg.some.module: a detail of 7") for line in details)


def test_the_flag_wins_over_the_variable_and_the_variable_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    def level(*words: str) -> int:
        parser = argparse.ArgumentParser()
        logs.add_flags(parser)
        logs.configure(parser.parse_args(words).log)
        return logging.getLogger("llm4seg").level

    monkeypatch.delenv(logs.VARIABLE)
    assert level() == logging.INFO
    monkeypatch.setenv(logs.VARIABLE, "quiet")
    assert level() == logging.WARNING
    assert (level("-v"), level("--verbose")) == (logging.DEBUG, logging.DEBUG)
    monkeypatch.setenv(logs.VARIABLE, "debug")
    assert (level("-q"), level("--quiet")) == (logging.WARNING, logging.WARNING)
    with pytest.raises(SystemExit):
        level("-q", "-v")


def test_a_bad_value_of_the_variable_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(logs.VARIABLE, "loud")
    with pytest.raises(InputError, match=r"^LLM4SEG_LOG: found 'loud', allowed: quiet, info or debug$"):
        logs.configure()


def test_set_up_twice_a_line_comes_once_and_not_through_the_root_logger(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    logs.configure()
    root = logging.StreamHandler(sys.stdout)
    logging.root.addHandler(root)
    try:
        TOLD.info("once")
    finally:
        logging.root.removeHandler(root)
    assert capsys.readouterr().out == "once\n"


def test_an_error_of_the_stream_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `print` does: a stage ends with its one line."""
    with suppress(OSError), Path("/dev/full").open("w") as full:  # when it is closed, the line still has no place
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(OSError, match="No space left"):
            TOLD.info("lost")


def test_a_line_does_not_break_a_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with tqdm(total=2, desc="bar", ncols=30, file=sys.stderr) as bar:
        bar.update()
        TOLD.warning("warning: between")
    shown = capsys.readouterr().err
    before = shown[: shown.index("warning: between")]
    assert before.endswith("\r")  # the bar was cleared
    assert before.rstrip("\r").rpartition("\r")[2].strip() == ""
    assert "bar" in shown.partition("warning: between\n")[2]  # and drawn again below


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("level", ["quiet", "info"])
def test_quiet_draws_no_progress(
    level: str, config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure(level)
    steps = io.StringIO()
    printer = EpochPrinter(3, Console(file=steps, force_terminal=True, width=120))
    printer(Step(1, 2, 20, 0.75, 8))
    printer(ROW)
    epoch = "epoch 1/3  loss 0.5000  val loss 0.4000  val Dice 0.2500  \n"
    assert capsys.readouterr() == (epoch if level == "info" else "", "")
    data, bars = Prepared(config.paths.prepared), Terminal()
    network = assemble(config.override({"model.bottleneck": "identity"}), data)
    monkeypatch.setattr(sys, "stderr", bars)
    evaluate_cases(network.eval(), data, [*data.cases][:1], config.evaluation, "the bar")
    assert [bool(steps.getvalue()), "the bar" in bars.getvalue()] == [level == "info"] * 2
    assert bool(bars.getvalue()) == (level == "info")


def test_lines_of_workers_keep_their_level(capsys: pytest.CaptureFixture[str]) -> None:
    """They are pickled on their way from Ray's workers."""
    import pickle

    damaged, choice = pickle.loads(pickle.dumps([logs.Warned("a damaged checkpoint"), "engine.name: auto is torch"]))
    printer = EpochPrinter(3)
    printer(damaged)
    printer(choice)
    assert capsys.readouterr() == ("train: engine.name: auto is torch\n", "train: a damaged checkpoint\n")
    logs.configure("quiet")
    printer(damaged)
    printer(choice)
    assert capsys.readouterr() == ("", "train: a damaged checkpoint\n")


def level_in_child(file: Path) -> int:
    tell_all()
    return logging.getLogger("llm4seg").level


@pytest.mark.parametrize("level", ["quiet", "debug"])
def test_a_process_at_work_takes_the_level(level: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure(level)
    with closing(in_processes(level_in_child, [tmp_path], 1, lambda _: 0, str)) as results:
        assert list(results) == [logs.LEVELS[level]]
    assert ("a detail of 7" in capfd.readouterr().err) == (level == "debug")


def test_the_level_goes_to_the_nodes_of_a_cluster() -> None:
    logs.configure("debug")
    assert _cluster_options()["runtime_env"]["env_vars"]["LLM4SEG_LOG"] == "debug"


def test_a_program_that_imports_the_package_decides_itself() -> None:
    without = {name: value for name, value in os.environ.items() if name != logs.VARIABLE}
    done = subprocess.run(
        [sys.executable, "-c", LIBRARY], cwd=ROOT, env=without, capture_output=True, text=True, check=True
    )
    assert done.stdout == "['NullHandler'] 0 True []\nllm4seg.runtime.device says seen\n"
    assert "unseen" not in done.stderr


run = partial(subprocess.run, cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("flag", ["-q", None, "-v"])
def test_a_stage_of_its_own_process(config: Config, tmp_path: Path, flag: str | None) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(yaml_of(config.override({"paths.split": str(tmp_path / "split.json")})))
    words = [sys.executable, "-m", split_stage.__name__, "--params", str(params)]
    done = run([*words, flag] if flag else words)
    assert (done.returncode, (tmp_path / "split.json").exists()) == (0, True)
    assert (done.stdout == "") == (flag == "-q")
    assert ("│ train" in done.stdout) == (flag != "-q")  # the table
    details = re.findall(DEBUG, done.stderr)
    assert "\n".join(details) == done.stderr.rstrip("\n")  # nothing else
    assert bool(details) == (flag == "-v")
    if flag == "-v":
        assert any(f"read {params}" in line for line in details)
        assert any(str(tmp_path / "split.json") in line for line in details)


def yaml_of(config: Config) -> str:
    import yaml

    return yaml.safe_dump(config.plain())


@pytest.mark.parametrize("command", [["-m", "pipelines.split"], ["-m", "llm4seg.cli", "preset", "default"]])
def test_a_bad_variable_ends_a_command_with_one_line(command: list[str]) -> None:
    done = run([sys.executable, *command], env=os.environ | {logs.VARIABLE: "loud"})
    name = "split" if "pipelines.split" in command else "preset"
    expected = f"{name}: LLM4SEG_LOG: found 'loud', allowed: quiet, info or debug\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", expected)


@pytest.mark.parametrize("flag", ["-q", "-v"])
def test_the_options_of_presets_are_there_at_every_level(flag: str) -> None:
    done = run([sys.executable, "-m", "llm4seg.cli", "preset", flag, "released"])
    assert done.returncode == 0
    assert re.fullmatch(r"(-S \S+ ?)+\n", done.stdout)
