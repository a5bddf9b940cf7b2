"""How much memory there is, and where a model goes that has no room."""

from pathlib import Path

import psutil
import pytest
import torch
from torch import nn

from llm4seg.runtime import device
from llm4seg.runtime.device import device_that_fits, free_bytes

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("limit", "free"), [("3000000", 3_000_000 - 1_000_000 + 200_000), ("500000", 0), ("max", None)]
)
def test_a_container_has_no_more_memory_than_its_limit(
    limit: str, free: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "CGROUP", tmp_path)
    (tmp_path / "memory.current").write_text("1000000\n")
    (tmp_path / "memory.stat").write_text("anon 700000\ninactive_file 200000\n")
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    found, there = free_bytes(CPU), psutil.virtual_memory().available
    assert found == max(0, free) if free is not None else found == pytest.approx(there, rel=0.2)


def test_without_a_container_it_is_the_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "CGROUP", tmp_path / "none")
    assert free_bytes(CPU) == pytest.approx(psutil.virtual_memory().available, rel=0.2)


def test_a_model_without_room_on_the_device_stays_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(device, "free_bytes", lambda device: 1000)
    assert device_that_fits(nn.Linear(10, 10), CUDA) == CUDA  # 440 bytes
    assert not capsys.readouterr().err
    assert device_that_fits(nn.Linear(10, 20), CUDA) == CPU  # 880 bytes
    assert "on the CPU: the model takes" in capsys.readouterr().err
