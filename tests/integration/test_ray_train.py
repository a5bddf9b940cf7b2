"""`train_on_ray` on a real Ray: the same history as in one process, from one worker or two."""

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.util.state import list_actors
from safetensors.torch import load_file

from llm4seg.cluster import launch
from llm4seg.cluster.launch import train_on_ray
from llm4seg.cluster.process_run import train_in_process
from llm4seg.cluster.ray_stop_signal import RayStopSignal
from llm4seg.cluster.runs import Outcome, completed_epochs, run_folder, run_name
from llm4seg.cluster.session import ray_session
from llm4seg.cluster.stop_signal import LocalStopSignal
from llm4seg.config import Config
from llm4seg.data.split import read_split
from llm4seg.training.checkpoint import Checkpoint
from llm4seg.training.run import LocalRun, Row
from llm4seg.training.trainer import Trainer, fit
from llm4seg.utils.errors import InputError, StopRequested, UserError
from tests.cluster import reachable
from tests.integration.test_engines import assert_same
from tests.worker_group import fit_on

CLUSTERS = {"_AutoscalingCoordinatorActor", "PreemptionWatcher"}  # actors that are of use on a cluster


@pytest.fixture(scope="module")
def ray(workspace: Config, one_ray: str) -> Iterator[None]:
    with reachable(one_ray), ray_session(workspace.override({"cluster.address": one_ray}).cluster):
        yield


@pytest.fixture(scope="module")
def history(group: None, workspace: Config, tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """What one process computes."""
    return fit(workspace, LocalRun(tmp_path_factory.mktemp("alone")))


def test_one_worker_computes_what_one_process_does(ray: None, config: Config, history: list[Row]) -> None:
    outcome = train_on_ray(config)
    assert_same(outcome.history, history)
    with outcome.weights() as weights:
        assert not any("gate_proj" in name for name in load_file(weights))
    # kept, the same config asked again would train nothing and report the old numbers
    assert (config.paths.runs / run_name(config)).exists()
    outcome.forget()
    assert not (config.paths.runs / run_name(config)).exists()


@pytest.mark.parametrize(("address", "more"), [(None, set()), ("auto", CLUSTERS)])
def test_only_actors_that_do_something_are_started(
    ray: None, config: Config, address: str | None, more: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray starts one for its datasets, and for a cluster that grows and shrinks, unless it is asked not to."""
    monkeypatch.delenv("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", raising=False)
    before = {actor.actor_id for actor in list_actors(limit=1000)}
    train_on_ray(config.override({"cluster.address": address}), name=f"train-{address}").forget()
    started = {actor.class_name for actor in list_actors(limit=1000) if actor.actor_id not in before}
    assert {"TrainController", "PlacementGroupCleaner"} <= started
    assert started & {"DatasetManager", *CLUSTERS} == more
    assert "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER" not in os.environ


def train_by(launcher: str, config: Config, stop: bool) -> Outcome:
    """Train by a launcher, maybe stopped after the first step."""
    if launcher == "process":
        local = LocalStopSignal()
        if stop:
            local.request_stop()
        return train_in_process(config, "train-mixed", print, local)
    stop_signal = RayStopSignal()
    if stop:
        stop_signal.request_stop()
    return train_on_ray(config, name="train-mixed", stop_signal=stop_signal)


@pytest.mark.parametrize("launchers", [("ray", "process"), ("process", "ray")])
def test_what_one_launcher_began_the_other_ends_bit_for_bit(
    ray: None, config: Config, history: list[Row], launchers: tuple[str, str]
) -> None:
    first, second = launchers
    with pytest.raises(StopRequested, match="a checkpoint is saved"):
        train_by(first, config, stop=True)
    assert len(run_folder(config, "train-mixed").checkpoints()) == 1
    assert completed_epochs(config, "train-mixed") == []
    outcome = train_by(second, config, stop=False)
    assert outcome.history == history
    assert len(run_folder(config, "train-mixed").checkpoints()) == config.cluster.keep


def test_two_workers_compute_what_two_processes_do(ray: None, config: Config, tmp_path: Path) -> None:
    """With ZeRO 3, which shards over them; for the other engines, see test_workers."""
    two = config.override({"cluster.workers": 2, "training.epochs": 1, "optimizer.name": "sgd", "engine.zero": 3})
    assert_same(train_on_ray(two).history, fit_on(2, two, tmp_path))


def test_bad_data_on_one_of_two_workers_ends_the_training_at_once(ray: None, config: Config, tmp_path: Path) -> None:
    """Although the other worker waits for that one, and Ray would start both again `cluster.max_failures` times."""
    prepared = Path(shutil.copytree(config.paths.prepared, tmp_path / "prepared"))
    manifest = json.loads((prepared / "manifest.json").read_text())
    case = read_split(config.paths.split).train[0]
    next(one for one in manifest["cases"] if one["id"] == case)["shards"]["grid"] = "gone.safetensors"
    (prepared / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError) as raised:
        train_on_ray(config.override({"paths.prepared": str(prepared), "cluster.workers": 2}))
    assert str(raised.value).startswith(f"{prepared / 'gone.safetensors'}: cannot be read")


def hang_in_the_second_epoch(order: dict[str, Any]) -> dict[str, Any]:
    """A worker whose training thread stops, as in a deadlock, while its process goes on to answer Ray."""
    train_step = Trainer.train_step

    def hang(trainer: Trainer, *arguments: Any) -> None:
        if trainer.progress.history:
            time.sleep(600)
        train_step(trainer, *arguments)

    Trainer.train_step = hang  # type: ignore[method-assign]
    return launch.worker(order)


@pytest.mark.slow
def test_a_worker_that_hangs_each_time_ends_in_one_line(
    ray: None, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun again once, from the checkpoint of the first epoch, which stays."""
    monkeypatch.setattr(launch, "worker", hang_in_the_second_epoch)
    config = config.override({"cluster.timeout": 10, "cluster.max_failures": 1})
    with pytest.raises(UserError) as raised:
        train_on_ray(config)
    assert str(raised.value).startswith("a worker failed more often than cluster.max_failures = 1 allows: ")
    assert "cluster.timeout" in str(raised.value)
    assert "\n" not in str(raised.value)
    (checkpoint,) = (config.paths.runs / run_name(config)).glob("checkpoint_*/")
    assert len(Checkpoint.read(checkpoint).progress.history) == 1


def test_names_tell_computations_apart(config: Config) -> None:
    assert run_name(config) == run_name(config.override({"cluster.max_failures": 0, "cluster.workers": 2}))
    for change in ({"optimizer.lr": 0.1}, {"model.llm.layer": 0}, {"engine.zero": 2}):
        assert run_name(config) != run_name(config.override(change))


def test_more_workers_than_cores_are_refused(ray: None, config: Config) -> None:
    crowd = config.override({"cluster.workers": 4, "cluster.cpus_per_worker": 1000})
    with pytest.raises(InputError, match=r"cluster.workers: found 4 x 1000 CPU cores, allowed: the cluster's"):
        train_on_ray(crowd)


def test_cuda_without_gpus_is_refused(ray: None, config: Config) -> None:
    if os.environ.get("CUDA_VISIBLE_DEVICES") or Path("/dev/nvidia0").exists():
        pytest.skip("there is a GPU")
    with pytest.raises(InputError, match=r"cluster.device: found cuda"):
        train_on_ray(config.override({"cluster.device": "cuda"}))
