"""The lock of runs: that of a living process is respected, that of a dead one taken over, anywhere and in a bucket."""

import json
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from llm4seg.cluster import run_lock as module
from llm4seg.cluster.run_lock import Owner, RunUnderWay, run_lock
from llm4seg.config import Config
from llm4seg.utils.errors import UserError
from tests.servers import S3

ALIVE = Owner("other", ["train-1"], "node7", module._machine(), os.getpid(), module._start(os.getpid()), 1.8e9)
ELSEWHERE = replace(ALIVE, machine="another")


@pytest.fixture
def config(config: Config, monkeypatch: pytest.MonkeyPatch) -> Config:
    for name, seconds in {"BEAT": 0.2, "STALE": 1.0, "WITHDRAW": 0.6, "POLL": 0.05}.items():
        monkeypatch.setattr(module, name, seconds)
    return config


def left_by(owner: Owner, config: Config, age: float = 0) -> Path:
    """The file of a process that died, or whose beats are not seen here."""
    file = config.paths.runs / f"{module.PREFIX}{owner.id}"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(asdict(owner)))
    os.utime(file, (time.time() - age,) * 2)
    return file


def taken(config: Config, runs: tuple[str, ...] = ("train-1",)) -> list[str]:
    """Take the lock; returns the names of the files that are left after it."""
    with run_lock(config, runs):
        pass
    return [file.name for file in config.paths.runs.iterdir()]


def test_a_run_that_is_under_way_is_refused_with_where_and_since_when(config: Config) -> None:
    with run_lock(config, ["train-1", "train-2"]):
        found = f"this run is under way already, on {socket.gethostname()} \\(pid {os.getpid()}\\) since 20.*: wait"
        with pytest.raises(RunUnderWay, match=found), run_lock(config, ["train-2", "train-3"]):
            pass
        with run_lock(config, ["train-3"]):  # of others, nothing is said
            pass
    assert taken(config) == []


def test_what_happens_inside_is_passed_on_and_the_lock_is_gone(config: Config) -> None:
    with pytest.raises(KeyboardInterrupt), run_lock(config, ["train-1"]):
        raise KeyboardInterrupt
    assert list(config.paths.runs.iterdir()) == []


def test_a_killed_process_holds_nothing(config: Config) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        owner = replace(ALIVE, pid=process.pid, start=module._start(process.pid))
        left_by(owner, config)
        with pytest.raises(RunUnderWay, match=f"on node7 \\(pid {process.pid}\\)"):
            taken(config)
        process.kill()
        while not owner.is_dead():  # a zombie, since nobody has waited for it
            time.sleep(0.01)
        assert taken(config) == []


def test_another_process_with_the_number_of_a_dead_one(config: Config) -> None:
    left_by(replace(ALIVE, start="1"), config)
    assert taken(config) == []


def test_an_empty_file_after_a_power_failure(config: Config) -> None:
    left_by(ALIVE, config).write_text("")
    assert taken(config) == [f"{module.PREFIX}other"]


@pytest.mark.parametrize("age", [0, 90])
def test_a_machine_that_no_longer_beats(config: Config, age: float, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever its clock says, it is watched."""
    left_by(ELSEWHERE, config, age)
    begin = time.monotonic()
    assert taken(config) == []
    assert 1 < time.monotonic() - begin < 3
    assert capsys.readouterr().out == "looking for up to 1 s whether node7 goes on with this run\n"


def test_a_machine_with_a_slow_clock_that_beats(config: Config) -> None:
    file, stop = left_by(ELSEWHERE, config, age=90), threading.Event()

    def beat() -> None:
        while not stop.wait(0.2):
            os.utime(file, (time.time() - 90,) * 2)

    beating = threading.Thread(target=beat)
    beating.start()
    try:
        with pytest.raises(RunUnderWay):
            taken(config)
    finally:
        stop.set()
        beating.join()
    assert file.exists()


@pytest.mark.parametrize("content", ["[]", "{}", '{"id": "x"}', "\0"])
def test_files_of_others_are_left_alone(config: Config, content: str) -> None:
    file = left_by(ALIVE, config)
    file.write_text(content)
    assert taken(config) == [file.name]


def test_a_copied_file_counts_as_its_process(config: Config) -> None:
    file = left_by(replace(ALIVE, start="1"), config)
    file.rename(file.with_name(f"{module.PREFIX}copy"))
    assert taken(config) == []


def test_a_folder_that_cannot_be_written_is_named_at_once(config: Config) -> None:
    with pytest.raises(UserError, match=r"/proc/x: cannot be written .*; it is cluster\.storage, or paths\.runs"):
        taken(config.override({"cluster.storage": "/proc/x"}))


def test_a_machine_that_beats(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as there:
        there.setattr(module, "_machine", lambda: "another")
        lock = run_lock(config, ["train-1"])
        lock.__enter__()
    time.sleep(1.5)  # longer than STALE
    with pytest.raises(RunUnderWay):
        taken(config)
    lock.__exit__(None, None, None)
    assert taken(config) == []


def test_a_process_that_withdraws_is_waited_for(config: Config) -> None:
    later = left_by(replace(ALIVE, since=time.time() + 60), config)
    with pytest.raises(RunUnderWay):  # it has not: it was under way before
        taken(config)
    later.unlink()
    assert taken(config) == []


def _start_together(params: dict[str, Any], barrier: Any, results: Any) -> None:
    barrier.wait()
    try:
        with run_lock(Config.parse(params), ["train-1"]):
            time.sleep(1)
            results.put("ran")
    except RunUnderWay:
        results.put("refused")


def test_of_several_that_start_at_once_just_one_runs(config: Config) -> None:
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(4), context.Queue()
    processes = [context.Process(target=_start_together, args=(config.plain(), barrier, results)) for _ in range(4)]
    for process in processes:
        process.start()
    assert sorted(results.get(timeout=60) for _ in processes) == ["ran", *3 * ["refused"]]
    for process in processes:
        process.join()
    assert list(config.paths.runs.iterdir()) == []


def test_in_a_bucket(config: Config, s3: S3) -> None:
    config = config.override({"cluster.storage": s3.storage("runs")})
    with run_lock(config, ["train-1"]):
        time.sleep(0.5)
        with pytest.raises(RunUnderWay, match=r"llm4seg/runs/\.lock-.* is its lock"), run_lock(config, ["train-1"]):
            pass
    with run_lock(config, ["train-1"]):
        pass
