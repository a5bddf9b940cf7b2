"""What is said where DeepSpeed cannot use an NVMe disk, and which locks of its builds are deleted."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from llm4seg.training.engines import nvme
from llm4seg.utils.errors import InputError

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("trial", "reason"),
    [
        ("import os; os.abort()", "DeepSpeed's reader ended with SIGABRT"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "DeepSpeed's reader ended with SIGSEGV"),
        ("raise SystemExit('no libaio')", "DeepSpeed's reader ended with exit code 1: no libaio"),
        ("raise SystemExit('mlock failed to allocate')", "12 MB of memory are to be locked, and `ulimit -l` allows "),
    ],
)
def test_a_reader_that_dies_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trial: str, reason: str
) -> None:
    monkeypatch.setattr(nvme, "TRIAL", trial)
    expected = f"engine.offload: nvme does not work in {tmp_path}: {reason}"
    with pytest.raises(InputError, match=re.escape(expected)) as caught:
        nvme.check(tmp_path / "mine", 12_000_000, CPU)
    assert str(caught.value).endswith("; allowed: cpu, or none")
    assert "\n" not in str(caught.value)


def test_the_trial_is_told_what_to_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It finds modules wherever the worker found them, and gets a folder that exists."""
    (tmp_path / "found_by_the_worker.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    told = (
        "import sys, pathlib, found_by_the_worker; pathlib.Path(sys.argv[1], 'told').write_text(' '.join(sys.argv[2:]))"
    )
    monkeypatch.setattr(nvme, "TRIAL", told)
    nvme.check(tmp_path / "mine", 7, CPU)
    assert (tmp_path / "mine" / "told").read_text() == "7 cpu"


def test_locks_of_killed_builds_are_deleted(tmp_path: Path) -> None:
    """Not that of a build that goes on, which is a process at work in the folder, nor of other extensions."""
    killed, building, other = (tmp_path / folder / "lock" for folder in ("a/async_io", "b/async_io", "a/other"))
    for lock in (killed, building, other):
        lock.parent.mkdir(parents=True)
        lock.touch()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, cwd=building.parent) as ninja:
        nvme.unlock(tmp_path)
        ninja.communicate(b"\n")
    assert not killed.exists()
    assert building.exists()
    assert other.exists()
    nvme.unlock(tmp_path)
    assert not building.exists()
