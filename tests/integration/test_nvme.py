"""DeepSpeed's op for NVMe itself: it works here, and where too little memory may be locked one line says so."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from llm4seg.config import Config
from llm4seg.training.engines import nvme
from llm4seg.training.run import LocalRun
from llm4seg.training.trainer import fit
from llm4seg.utils.errors import InputError
from tests.integration.test_engines import NVME
from tests.nvme import needs_nvme

TRY = """
import resource, sys, pathlib, torch
from llm4seg.training.engines import nvme
resource.setrlimit(resource.RLIMIT_MEMLOCK, (2**16, 2**16))
nvme.check(pathlib.Path(sys.argv[1]), 12_000_000, torch.device("cpu"))
"""
# root may lock all the same, unless this capability is taken away
WITHOUT_CAPABILITY = ["setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock"] if os.geteuid() == 0 else []


def test_what_is_written_is_read(tmp_path: Path) -> None:
    needs_nvme()
    nvme.check(tmp_path / "mine", 3 * 2**20, torch.device("cpu"))
    assert list((tmp_path / "mine").iterdir()) == []


def test_too_little_memory_may_be_locked(tmp_path: Path) -> None:
    needs_nvme()
    command = [*WITHOUT_CAPABILITY, sys.executable, "-c", TRY, str(tmp_path / "mine")]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "InputError: engine.offload: nvme does not work in " in ended.stderr
    assert "12 MB of memory are to be locked, and `ulimit -l` allows 0.0655 MB" in ended.stderr


def test_a_lock_left_by_a_killed_build_is_no_obstacle(tmp_path: Path) -> None:
    """Of the extensions that are there already: to build them anew takes minutes."""
    needs_nvme()
    nvme.check(tmp_path / "first", 2**20, torch.device("cpu"))
    from torch.utils.cpp_extension import get_default_build_root

    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
    locks = [folder / "lock" for folder in root.rglob("async_io")]
    assert locks
    for lock in locks:
        lock.touch()
    nvme.check(tmp_path / "second", 2**20, torch.device("cpu"))
    assert not any(lock.exists() for lock in locks)


@pytest.mark.usefixtures("group")
def test_a_training_begins_with_that_trial(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvme, "TRIAL", "raise SystemExit('no such disk')")
    with pytest.raises(InputError, match=rf"nvme does not work in {tmp_path}/disk: .* no such disk; allowed: cpu, or"):
        fit(config.override(NVME | {"cluster.nvme": str(tmp_path / "disk")}), LocalRun(tmp_path / "run"))
