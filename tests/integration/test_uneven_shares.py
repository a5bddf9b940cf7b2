"""Workers that do not divide the batch, as an elastic cluster has them: the same training as on one."""

from pathlib import Path
from typing import Any

import pytest

from llm4seg.config import Config
from tests.integration.test_engines import assert_same
from tests.worker_group import fit_on

# steps small enough for rounding to stay rounding: ZeRO and more workers sum in another order
CHANGES = {"training.batch_size": 8, "training.epochs": 2, "optimizer.name": "sgd", "optimizer.lr": 0.01}


@pytest.mark.parametrize("engine", [{"engine.name": "torch"}, {"engine.zero": 1}, {"engine.zero": 3}])
def test_three_workers_share_eight_samples(config: Config, tmp_path: Path, engine: dict[str, Any]) -> None:
    config = config.override(CHANGES | engine)
    assert_same(fit_on(3, config, tmp_path / "three"), fit_on(1, config, tmp_path / "one"))


def test_unequal_micro_batches_are_shared_too(config: Config, tmp_path: Path) -> None:
    config = config.override(CHANGES | {"engine.accumulation": 2, "optimizer.clip_norm": 0.5})
    assert_same(fit_on(3, config, tmp_path / "three"), fit_on(1, config, tmp_path / "one"))
