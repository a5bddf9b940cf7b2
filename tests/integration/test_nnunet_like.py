"""Nesterov momentum, deep supervision and strides by axis in training: engines, workers, resumes, and the preset."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from llm4seg.config import Config
from llm4seg.models.saved import WEIGHTS, read_metadata
from llm4seg.utils.files import read_json, sha256_file
from pipelines.evaluate import evaluate
from pipelines.train import train as train_stage
from tests.integration.test_engines import ENGINES, StopAfter, assert_resumes, assert_same, train
from tests.lesion_volumes import prepare_lesions
from tests.tiny import PARAMS
from tests.worker_group import fit_on

CHANGES: dict[str, Any] = {
    "model.cmunext.dims": [4, 4, 8, 8],
    "model.cmunext.depths": [1, 1, 1, 1],
    "model.cmunext.kernels": [3, 3, 3, 3],
    "optimizer.name": "sgd",
    "optimizer.lr": 0.01,
    "optimizer.nesterov": True,
    "training.deep_supervision": True,
    "training.epochs": 2,
}


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("name", ["zero 1", "zero 3"])
def test_engines_agree(config: Config, tmp_path: Path, name: str) -> None:
    config = config.override(CHANGES)
    history, weights = train(config.override(ENGINES["torch"]), tmp_path / "torch")
    twin, others = train(config.override(ENGINES[name]), tmp_path / name)
    assert "decoder.supervised.0.weight" in weights
    if name == "zero 1":
        assert twin == history
        assert all(torch.equal(value, others[tensor]) for tensor, value in weights.items())
        return
    # BatchNorm over the few values of the coarsest level turns last bits, which ZeRO 3 rounds otherwise, into signs: on
    # some processors training losses after the first epoch differ by up to 0.4 %, but neither weights nor validation
    assert twin[0] == pytest.approx(history[0], rel=1e-5)
    assert [row["val_loss"] for row in twin] == pytest.approx([row["val_loss"] for row in history], rel=2e-4)
    for tensor, value in weights.items():
        torch.testing.assert_close(others[tensor], value, rtol=1e-4, atol=2e-4)


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("name", ["torch", "zero 1"])
def test_left_within_an_epoch_and_gone_on_with(config: Config, tmp_path: Path, name: str) -> None:
    """Bit for bit, Nesterov's velocities and the heads included."""
    config = config.override(CHANGES | ENGINES[name])
    assert_resumes(config, StopAfter(tmp_path / "parts", 6), train(config, tmp_path / "whole"))


@pytest.mark.usefixtures("group")
def test_both_change_a_training(config: Config, tmp_path: Path) -> None:
    config = config.override(CHANGES | ENGINES["torch"] | {"training.epochs": 1})
    losses = []
    for number, changes in enumerate(({}, {"optimizer.nesterov": False}, {"training.deep_supervision": False})):
        history, _ = train(config.override(changes), tmp_path / str(number))
        losses.append(history[-1]["train_loss"])
    assert len(set(losses)) == 3


@pytest.mark.slow
@pytest.mark.parametrize("accumulation", [1, 2])
def test_two_workers_compute_what_one_does(config: Config, tmp_path: Path, accumulation: int) -> None:
    """Dice is over the micro-batches of all workers, at each resolution. In small steps: larger ones blow up what sums
    in another order leave, with or without deep supervision. And two workers resume within an epoch bit for bit.
    """
    changes = {"optimizer.lr": 0.002, "engine.accumulation": accumulation}
    config = config.override(CHANGES | ENGINES["torch"] | changes)
    one, two = (fit_on(workers, config, tmp_path / str(workers)) for workers in (1, 2))
    assert_same(two, one)
    assert fit_on(2, config, tmp_path / "parts", stop_after=6) == []
    assert fit_on(2, config, tmp_path / "parts") == two
    files = [tmp_path / part / "checkpoint" / WEIGHTS for part in ("2", "parts")]
    assert sha256_file(files[0]) == sha256_file(files[1])


PRESET: dict[str, Any] = {
    "data.spacing": [0.7, 0.7, 2.1],
    "data.intensity": "ct",
    "model.backbone": "dynunet",
    "model.dynunet.filters": [8, 16, 24, 32, 40],
    "training.epochs": 4,
    "training.patch.per_case": 6,
    "training.augment.flip": [0, 1],
    "split.val": 0.25,
    "split.test": 0.25,
    "cluster.launcher": "process",
}


@pytest.mark.slow
def test_the_preset_learns_lesions_on_anisotropic_volumes(tmp_path: Path) -> None:
    """Slices are three times as far apart as pixels, and are halved a step later than rows and columns; of five levels
    four are left. Seen: a Dice of 0.91 on the test part after 48 steps.
    """
    config = prepare_lesions(tmp_path, Config.load(PARAMS).preset_changes("nnunet-like") | PRESET)
    assert config.automatic == ["training.patch.size", "model.dynunet.strides"]
    train_stage(config)
    described, section = read_metadata(config.paths.model)
    assert described["data"]["size"] == described["config"]["training"]["patch"]["size"] == [32, 48, 20]
    assert section.dynunet.strides == ((2, 2, 1), (2, 2, 2), (2, 2, 2))
    assert section.dynunet.kernels == ((3, 3, 1), (3, 3, 3), (3, 3, 3), (3, 3, 3))
    assert {"decoder.supervised.0.weight"} <= load_file(config.paths.model / WEIGHTS).keys()
    evaluate(config)
    assert read_json(config.paths.metrics)["dice"]["mean"] > 0.8
