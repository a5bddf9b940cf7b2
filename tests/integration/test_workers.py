"""The global batch decides: any number of workers, any engine, interrupted anywhere, compute the same training."""

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from llm4seg.config import Config
from llm4seg.data.split import read_split
from llm4seg.models.saved import WEIGHTS
from llm4seg.training.checkpoint import Checkpoint
from llm4seg.training.run import CHECKPOINT, CONTINUE, LocalRun, Row
from llm4seg.training.trainer import Trainer, fit
from llm4seg.utils.errors import Diverged
from llm4seg.utils.files import sha256_file
from tests.integration.test_engines import ENGINES, assert_same
from tests.worker_group import fit_on

# larger steps would blow up the rounding of gradients that are zero in theory, see test_engines
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer.name": "sgd", "optimizer.lr": 0.002},
    "adamw": {"optimizer.name": "adamw", "optimizer.lr": 0.0002},
}
EIGHT = {"training.batch_size": 8, "training.epochs": 3}  # two steps an epoch


@pytest.fixture(scope="module")
def by_one(workspace: Config, tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """What one worker computes with SGD in plain torch."""
    config = workspace.override(EIGHT | OPTIMIZERS["sgd"] | ENGINES["torch"])
    return fit_on(1, config, tmp_path_factory.mktemp("one"))


@pytest.mark.parametrize(
    ("workers", "engine"), [(2, "torch"), (3, "torch"), (3, "zero 1"), (3, "zero 3"), (4, "zero 1")]
)
def test_any_number_of_workers_computes_what_one_does(
    config: Config, tmp_path: Path, workers: int, engine: str, by_one: list[Row]
) -> None:
    """To 1e-5: more workers sum in another order. Three do not divide the batch of eight."""
    config = config.override(EIGHT | OPTIMIZERS["sgd"] | ENGINES[engine])
    assert_same(fit_on(workers, config, tmp_path), by_one)


@pytest.mark.parametrize(
    ("workers", "changes"),
    [(2, OPTIMIZERS["adamw"]), (3, OPTIMIZERS["sgd"] | {"engine.accumulation": 2, "optimizer.clip_norm": 0.5})],
    ids=["adamw", "accumulation and clipping"],
)
def test_so_do_they_with_other_optimizers_and_unequal_micro_batches(
    config: Config, tmp_path: Path, workers: int, changes: dict[str, Any]
) -> None:
    config = config.override(EIGHT | {"engine.zero": 1} | changes)
    assert_same(fit_on(workers, config, tmp_path / "many"), fit_on(1, config, tmp_path / "one"))


@pytest.mark.parametrize(
    "changes",
    [
        {"training.loss": "dice_focal", "training.class_weights": "auto"},
        {"training.loss": "tversky_ce", "training.class_weights": [0.2, 1.0, 3.0]},
    ],
    ids=lambda changes: changes["training.loss"],
)
def test_losses_and_class_weights_are_of_the_global_batch(
    config: Config, tmp_path: Path, changes: dict[str, Any], by_one: list[Row]
) -> None:
    """Three workers count the pixels of unequal shares, and divide by the weights of all of them."""
    config = config.override(EIGHT | OPTIMIZERS["sgd"] | ENGINES["torch"] | changes)
    one = fit_on(1, config, tmp_path / "one")
    assert one[0]["train_loss"] != pytest.approx(by_one[0]["train_loss"], rel=0.01)
    assert_same(fit_on(3, config, tmp_path / "many"), one)


# steps of training and validation after which a run stops: an epoch has two and one; validation begins anew
STOPS = {"torch": (1, 2, 3), "zero 1": (4,), "zero 3": (5,)}


@pytest.mark.parametrize("name", STOPS)
def test_left_within_an_epoch_and_gone_on_with_is_equal_bit_for_bit(config: Config, tmp_path: Path, name: str) -> None:
    """On two workers; on one, see test_engines."""
    config = config.override(EIGHT | ENGINES[name])
    whole = fit_on(2, config, tmp_path / "whole")
    for stop_after in STOPS[name]:
        assert fit_on(2, config, tmp_path / "parts", stop_after) == []
    left = Checkpoint.read(tmp_path / "parts" / "checkpoint").progress
    assert (len(left.history), left.step) == (1, 1 if name == "zero 1" else 2)
    assert fit_on(2, config, tmp_path / "parts") == whole
    files = [tmp_path / part / "checkpoint" / WEIGHTS for part in ("whole", "parts")]
    assert sha256_file(files[0]) == sha256_file(files[1])


PARTS = {"sgd": ((2, "zero 1", 1),), "adamw": ((2, "zero 1", 1), (1, "zero 3", 3), (4, "zero 2", 1))}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_gone_on_with_by_other_engines_on_other_numbers_of_workers(config: Config, tmp_path: Path, name: str) -> None:
    config = config.override(EIGHT | OPTIMIZERS[name])
    whole = fit_on(1, config.override(ENGINES["torch"]), tmp_path / "whole")
    parts = tmp_path / "parts"
    for workers, engine, stop_after in PARTS[name]:
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

    class Recording(LocalRun):
        def report(self, row: Row | None, save: Any) -> None:
            again.append(row)
            super().report(row, save)

    assert fit(config, Recording(tmp_path)) == first
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
    cases = [case for case in read_split(config.paths.split).train if case in str(raised.value)]
    saved = list((tmp_path / "new").glob("checkpoint*"))
    assert "the last checkpoint is kept" in str(raised.value)
    assert "in epoch 1, step " in str(raised.value) or "after 0 whole epochs and 1 steps" in str(raised.value)
    assert len(cases) == config.training.batch_size or "sum of all weights" in str(raised.value)
    assert all(tensor.isfinite().all() for folder in saved for tensor in Checkpoint.read(folder).model.values())


class Spoiled:
    """A loss whose value is right, and whose gradient is no number from a call on, counted from 0."""

    def __init__(self, loss: Any, call: int) -> None:
        self._loss, self._left = loss, call

    def __call__(self, logits_NKS: Tensor, labels_NS: Tensor) -> Tensor:
        loss: Tensor = self._loss(logits_NKS, labels_NS)
        self._left -= 1
        return loss if self._left >= 0 else loss + (0 * logits_NKS.sum()).sqrt()  # the slope of a root at 0


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("signal", [CONTINUE, CHECKPOINT])
@pytest.mark.parametrize("clip_norm", [None, 1.0])
@pytest.mark.parametrize("name", ["torch", "zero 0", "zero 1", "zero 3"])
def test_a_gradient_that_is_no_number_is_in_no_checkpoint(
    config: Config, tmp_path: Path, name: str, clip_norm: float | None, signal: int
) -> None:
    """At the second epoch's first or last step. The loss of that step is finite: the weights, or what comes next, are
    what tells. With a checkpoint after each step the last one is of the step before.
    """

    class Saving(LocalRun):
        def control_signal(self) -> int:
            return signal

    for call in (3, 5):
        folder = tmp_path / str(call)
        trainer = Trainer(config.override(ENGINES[name] | {"optimizer.clip_norm": clip_norm}), Saving(folder))
        trainer.loss = Spoiled(trainer.loss, call)  # type: ignore[assignment]
        with pytest.raises(Diverged, match=r"(is nan|is not finite) .*the last checkpoint is kept"):
            trainer.train()
        left = Checkpoint.read(folder / "checkpoint")
        assert (len(left.progress.history), left.progress.step) == (1, call - 3 if signal == CHECKPOINT else 0)
        for saved in folder.glob("checkpoint*"):
            tensors = {**Checkpoint.read(saved).model, **Checkpoint.read(saved).optimizer}
            assert all(tensor.isfinite().all() for tensor in tensors.values())
