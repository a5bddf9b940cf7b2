"""A real Ray that takes this machine for one with GPUs: runs share those of `cluster.gpus`, and no others."""

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ray import tune
from ray.tune import RunConfig, TuneConfig, Tuner

from llm4seg.cluster import session
from llm4seg.cluster.session import cpus_per_worker, ray_session, runs_at_once
from llm4seg.cluster.trials import KeptTrial, trial_resources
from llm4seg.config import Config
from llm4seg.config.schema import Cluster

RUNS, SECONDS = 8, 240


class Meeting(KeptTrial):
    """A trial that ends once RUNS of them are under way; its result is the GPU that it was given."""

    def setup(self, config: dict[str, Any]) -> None:
        self.begin(config)

    def results(self, sample: dict[str, Any]) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        folder, end = Path(sample["folder"]), time.monotonic() + SECONDS
        (folder / str(sample["number"])).touch()
        while (met := len(list(folder.iterdir()))) < RUNS and time.monotonic() < end:
            time.sleep(0.1)
        yield {"met": met, "gpu": os.environ["CUDA_VISIBLE_DEVICES"], "done": True}


@pytest.fixture
def section(config: Config, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Of runs that take a quarter of one of two GPUs, on a machine with 16 cores."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,3")  # as `choose_gpus` sets it
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    options = session._local_options() | {"num_gpus": 2, "num_cpus": 16}
    monkeypatch.setattr(session, "_local_options", lambda: options)
    changes = {"device": "auto", "gpus_per_worker": 0.25, "cpus_per_worker": None}
    changed = config.override({f"cluster.{name}": value for name, value in changes.items()}).cluster
    with ray_session(changed):
        yield changed


def test_four_runs_share_a_gpu(section: Cluster, tmp_path: Path) -> None:
    """As a study and a search ask for their trials, without a word on cores."""
    assert (runs_at_once(section), cpus_per_worker(section)) == (RUNS, 2)
    (tmp_path / "met").mkdir()
    tuner = Tuner(
        tune.with_resources(Meeting, trial_resources(section)),
        param_space={"number": tune.grid_search(list(range(RUNS))), "folder": str(tmp_path / "met")},
        tune_config=TuneConfig(max_concurrent_trials=runs_at_once(section), reuse_actors=True),
        run_config=RunConfig(storage_path=str(tmp_path / "tune"), verbose=0),
    )
    results = [result.metrics for result in tuner.fit()]
    assert [metrics["met"] for metrics in results] == RUNS * [RUNS]
    assert Counter(metrics["gpu"] for metrics in results) == {"1": 4, "3": 4}
