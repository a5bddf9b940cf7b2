"""The global batch decides: any number of workers, any engine, interrupted anywhere, compute the same training."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from llm4seg.config import Config
from llm4seg.models.saved import WEIGHTS
from llm4seg.runtime.batchnorm import GlobalBatchNorm
from llm4seg.runtime.collectives import all_reduce_sum
from llm4seg.training.checkpoint import Checkpoint
from llm4seg.training.run import LocalRun, Row
from llm4seg.training.trainer import Diverged, fit
from llm4seg.utils.files import sha256_file
from tests.integration.test_engines import ENGINES, assert_same
from tests.worker_group import fit_on, on_group

# larger steps would blow up the rounding of gradients that are zero in theory, see test_engines
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer.name": "sgd", "optimizer.lr": 0.002},
    "adamw": {"optimizer.name": "adamw", "optimizer.lr": 0.0002},
}
EIGHT = {"training.batch_size": 8, "training.epochs": 3}  # two steps an epoch


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_one_two_and_four_workers_compute_the_same(config: Config, tmp_path: Path, name: str) -> None:
    config = config.override(EIGHT | OPTIMIZERS[name] | {"engine.zero": 1})
    one, two, four = (fit_on(workers, config, tmp_path / str(workers)) for workers in (1, 2, 4))
    assert len(one) == 3
    assert_same(two, one)
    assert_same(four, one)


@pytest.mark.parametrize("name", ["torch", "zero 1", "zero 3"])
@pytest.mark.parametrize("workers", [1, 2])
def test_left_within_an_epoch_and_gone_on_with_is_equal_bit_for_bit(
    config: Config, tmp_path: Path, name: str, workers: int
) -> None:
    config = config.override(EIGHT | ENGINES[name])
    whole = fit_on(workers, config, tmp_path / "whole")
    for stop_after in (1, 2, 3):  # within the first epoch, in its validation, and after the last step of the second
        assert fit_on(workers, config, tmp_path / "parts", stop_after) == []
    left = Checkpoint.read(tmp_path / "parts" / "checkpoint").progress
    assert (len(left.history), left.step) == (1, 2)
    assert fit_on(workers, config, tmp_path / "parts") == whole
    files = [tmp_path / part / "checkpoint" / WEIGHTS for part in ("whole", "parts")]
    assert sha256_file(files[0]) == sha256_file(files[1])


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_gone_on_with_by_other_engines_on_other_numbers_of_workers(config: Config, tmp_path: Path, name: str) -> None:
    config = config.override(EIGHT | OPTIMIZERS[name])
    whole = fit_on(1, config.override(ENGINES["torch"]), tmp_path / "whole")
    parts = tmp_path / "parts"
    for workers, engine, stop_after in ((2, "zero 1", 1), (1, "zero 3", 3), (4, "zero 2", 1)):
        assert fit_on(workers, config.override(ENGINES[engine]), parts, stop_after) == []
    assert_same(fit_on(2, config.override(ENGINES["torch"]), parts), whole)


def test_auto_changes_engines_with_the_number_of_workers(config: Config, tmp_path: Path) -> None:
    """One worker trains with torch, two go on with DeepSpeed, and one takes over again."""
    config = config.override(EIGHT | OPTIMIZERS["adamw"] | {"engine.name": "auto", "engine.zero": 2})
    assert [config.engine.resolve(workers).name for workers in (1, 2)] == ["torch", "deepspeed"]
    whole, parts = fit_on(1, config, tmp_path / "whole"), tmp_path / "parts"
    for workers in (1, 2):
        assert fit_on(workers, config, parts, stop_after=2) == []
    assert_same(fit_on(1, config, parts), whole)


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("name", ["torch", "zero 1", "zero 3"])
def test_a_finished_run_asked_again_reports_its_checkpoint(config: Config, tmp_path: Path, name: str) -> None:
    """Its starter died before it heard of the end."""
    config = config.override(ENGINES[name])
    first = fit(config, LocalRun(tmp_path))
    weights = sha256_file(tmp_path / "checkpoint" / WEIGHTS)
    again: list[Row | None] = []

    class Listening(LocalRun):
        def report(self, row: Row | None, save: Any) -> None:
            again.append(row)
            super().report(row, save)

    assert fit(config, Listening(tmp_path)) == first
    assert again == [None]
    assert sha256_file(tmp_path / "checkpoint" / WEIGHTS) == weights


@pytest.mark.usefixtures("group")
def test_a_loss_that_is_no_number_names_the_step_and_the_cases(config: Config, tmp_path: Path) -> None:
    """The last checkpoint stays, with sound weights in it, although one is asked for after every step."""

    class Saving(LocalRun):
        def control_signal(self) -> int:
            return 1

    config = config.override({"optimizer.name": "sgd", "optimizer.schedule": "constant"})
    fit(config.override({"training.epochs": 1}), LocalRun(tmp_path))
    with pytest.raises(Diverged) as raised:
        fit(config.override({"optimizer.lr": 1e30}), Saving(tmp_path / "new"))
    cases = [case for case in LocalCases(config).train if case in str(raised.value)]
    saved = list((tmp_path / "new").glob("checkpoint*"))
    assert "the last checkpoint is kept" in str(raised.value)
    assert "in epoch 1, step " in str(raised.value) or "after 0 whole epochs and 1 steps" in str(raised.value)
    assert len(cases) == config.training.batch_size or "sum of all weights" in str(raised.value)
    assert all(tensor.isfinite().all() for folder in saved for tensor in Checkpoint.read(folder).model.values())


def LocalCases(config: Config) -> Any:  # noqa: N802
    from llm4seg.data.split import read_split

    return read_split(config.paths.split)


def gradient_of_a_total(rank: int) -> float:
    """loss = (a + b)^2 computed on both from the total; engines take the mean of what each gets."""
    mine = torch.tensor([1.0, 2.0][rank], requires_grad=True)
    all_reduce_sum(mine).square().backward()
    return float(mine.grad)  # type: ignore[arg-type]


def test_the_gradient_of_a_total_is_that_of_the_whole_times_the_workers() -> None:
    """d (a + b)^2 / da = 6, from each of two workers; the mean over them of what parameters get is that of one."""
    assert on_group(2, gradient_of_a_total) == [12.0, 12.0]


def _norms(kind: Any) -> Any:
    torch.manual_seed(0)
    norm = kind(3)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    images = torch.randn(4, 3, 5, 6) * 3 + 1
    return norm, images, torch.randn_like(images)


def batch_norm(rank: int) -> list[Any]:
    """Two steps in training and one in evaluation, each process on its half of the batch."""
    norm, images, weights = _norms(GlobalBatchNorm)
    mine = images[2 * rank : 2 * rank + 2].clone().requires_grad_()
    out = [norm(mine), norm(mine * 2)]
    sum((one * weights[2 * rank : 2 * rank + 2]).sum() for one in out).backward()
    norm.eval()
    gradients = [norm.weight.grad, norm.bias.grad]
    for gradient in gradients:
        torch.distributed.all_reduce(gradient)
    tensors = [*out, norm(mine), mine.grad, *gradients, norm.running_mean, norm.running_var]
    return [tensor.tolist() for tensor in tensors]


def test_batch_norm_over_two_processes_is_that_of_the_whole_batch() -> None:
    found = [torch.tensor(value) for value in on_group(2, batch_norm)[1]]
    norm, images, weights = _norms(nn.BatchNorm2d)
    images.requires_grad_()
    out = [norm(images), norm(images * 2)]
    sum((one * weights).sum() for one in out).backward()
    norm.eval()
    wanted = [*(one[2:] for one in out), norm(images)[2:], images.grad[2:], norm.weight.grad, norm.bias.grad]
    for one, other in zip(found, [*wanted, norm.running_mean, norm.running_var], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
