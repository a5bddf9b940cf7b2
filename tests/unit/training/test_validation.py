"""Validation in batches of any size, from shards or from the device, measures the same."""

from pathlib import Path
from typing import Any

import pytest
import torch

from llm4seg.config import Config
from llm4seg.data.resident import stacked
from llm4seg.training.run import LocalRun
from llm4seg.training.trainer import Trainer
from llm4seg.training.validation import large_batch

CPU = torch.device("cpu")


@pytest.mark.usefixtures("group")
def test_the_batch_and_where_images_lie_change_nothing_but_rounding(config: Config, tmp_path: Path) -> None:
    """Also with a last batch that is not full; pictures are of the same cases."""
    small = {"engine.name": "torch", "training.batch_size": 1, "tracking.pictures": 1}
    trainer = Trainer(config.override(small), LocalRun(tmp_path))
    validation, shown = trainer.validation, list[Any]()
    trainer.run.show = shown.append  # type: ignore[method-assign]
    loss, dice = trainer.validate()
    polled: list[int] = []
    for size in (1, 3, 8):
        for held in (False, True):
            validation._batch_size = size
            validation._resident = stacked(trainer.data, validation._own, CPU, lambda labels_S, case: labels_S)
            if not held:
                validation._resident = None
            polled.clear()
            found = validation(1, lambda: polled.append(1))
            assert found == (pytest.approx(loss, rel=1e-6), dice)
            assert len(polled) == -(-4 // size)
    assert {tuple(one.case for one in live.snapshots) for live in shown} == {
        tuple(one.case for one in shown[0].snapshots)
    }
    assert len(shown[0].snapshots) == 2


@pytest.mark.parametrize(
    ("share", "size", "batch"),
    [(4, (128, 128), 32), (8, (256, 256), 32), (8, (512, 512), 8), (1, (32, 32), 8), (16, (1024, 1024), 16)],
)
def test_a_batch_on_a_gpu_follows_from_the_config_alone(share: int, size: tuple[int, int], batch: int) -> None:
    """Eight times the training's, but with 2 million pixels at most, unless the training has more."""
    assert large_batch(share, size) == batch
