"""`python -m tests.benchmarks.speed`: what it counts, what its ways have in common, and a run of it in small."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from llm4seg.objectives.losses import build_loss
from tests.benchmarks.default import PARAMS
from tests.benchmarks.speed.compare import Process, Settings, WayFailed
from tests.benchmarks.speed.counts import counted
from tests.benchmarks.speed.naive import dice_ce
from tests.benchmarks.speed.ways import MEMORY, WAYS, available, environment

TINY = [
    "model.bottleneck=identity",
    "model.cmunext.dims=[4, 8, 8]",
    "model.cmunext.depths=[1, 1, 1]",
    "model.cmunext.kernels=[3, 3, 7]",
]


def test_all_loops_have_the_same_loss() -> None:
    from monai.losses import DiceCELoss

    torch.manual_seed(0)
    logits, labels = torch.randn(3, 5, 12, 10), torch.randint(0, 5, (3, 12, 10))
    monai = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)(logits, labels[:, None])
    torch.testing.assert_close(dice_ce(logits, labels), build_loss("dice_ce")(logits, labels))
    torch.testing.assert_close(monai, dice_ce(logits, labels))


def test_views_and_allocations_are_no_launches_and_reads_are_counted_apart() -> None:
    values = torch.ones(4, 6)
    with counted(torch.device("cpu")) as found:
        part = values.view(24)[3:].unsqueeze(0).detach()
        torch.empty(3)
        values.add_(1)
        (part * 2).sum().item()
        values.cpu()
    assert found == {"launches": 3, "syncs": 2}  # add_, mul, sum; item, cpu


def test_ways_that_cannot_be_run_are_left_out_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.benchmarks.speed.ways.find_spec", lambda name: None)
    names, notes = available(None, "cpu")
    assert names == ["naive", "naive-bare", "ours", "ours-bf16"]
    assert "monai: left out: monai is not installed" in notes
    assert "ours-eager: left out: on CUDA only" in notes


@pytest.mark.parametrize(("memory", "having"), [("default", set()), ("own", {"ours"}), ("ours", {"ours", "naive"})])
def test_the_allocators_settings_are_those_of_the_ways_that_should_have_them(memory: str, having: set[str]) -> None:
    for name in ("ours", "naive"):
        found = environment(WAYS[name], memory, threads=3)
        assert found.pop("OMP_NUM_THREADS") == "3"
        assert found == (MEMORY if name in having else {})


def test_a_way_that_fails_says_why(tmp_path: Path) -> None:
    with (
        Process("naive", {"model.nonsense": 1}, tmp_path / "naive", Settings("cpu", 1, "default", 1)) as process,
        pytest.raises(WayFailed, match=r"model\.nonsense"),
    ):
        process.answer()


def test_two_ways_in_small(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    shape = ["--size", "2x32", "--steps", "2", "--rounds", "1", "--threads", "1"]
    options = ["--device", "cpu", "--ways", "naive", "ours", *shape, "--json"]
    command = [sys.executable, "-m", "tests.benchmarks.speed", *options, str(file), "--set", *TINY]
    ended = subprocess.run(command, cwd=PARAMS.parent, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "batches of 2 images of 32 x 32, 2 steps an epoch" in ended.stdout
    (result,) = json.loads(file.read_text())["results"]
    naive, ours = result["ways"]["naive"], result["ways"]["ours"]
    assert result["notes"] == []
    assert naive["times"] == naive["step_times"] == 1
    assert ours["times"] == pytest.approx(ours["images_s"] / naive["images_s"])
    for row in (naive, ours):
        assert row["images_s"] > 0
        # 4 images; a step's share of training is less than the epoch
        assert row["epoch"] == pytest.approx(4 / row["images_s"])
        assert 0 < 2 * row["step_ms"] / 1e3 < row["epoch"]
        assert row["peak_mb"] > 100
        assert row["launches"] > 100
    # the naive loop copies logits and labels to the host in each step, and reads the loss, as all do
    assert ours["launches"] < naive["launches"] / 3
    assert ours["syncs"] <= 6 < naive["syncs"]  # the loss of a step, and the draws of an epoch
