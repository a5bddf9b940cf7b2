"""`train_on_ray` on a real Ray: the same history as in one process, from one worker or two, killed or not."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import psutil
import pytest
from safetensors.torch import load_file

from llm4seg.cluster.session import ray_session
from llm4seg.cluster.train import forget_run, run_name, train_on_ray
from llm4seg.config import Config
from llm4seg.errors import InputError
from llm4seg.run import LocalRun, Row
from llm4seg.train import fit
from tests.integration.test_engines import assert_same


@pytest.fixture(scope="module")
def ray(workspace: Config) -> Iterator[None]:
    with ray_session(workspace.cluster):
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
    forget_run(config)
    assert not (config.paths.runs / run_name(config)).exists()


def test_two_workers_agree_between_engines(ray: None, config: Config) -> None:
    """BatchNorm sees half batches, so two workers differ a little from one; engines must not differ."""
    two = config.override({"cluster.workers": 2, "training.epochs": 1, "optimizer.name": "sgd"})
    engines = [{"engine.name": "torch"}, {"engine.zero": 1}, {"engine.zero": 3}]
    torch, *deepspeed = [train_on_ray(two.override(engine)).history for engine in engines]
    for history in deepspeed:
        assert_same(history, torch)


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


def workers_of(pid: int) -> list[psutil.Process]:
    """The Ray Train worker processes below a process."""
    below = psutil.Process(pid).children(recursive=True)
    return [process for process in below if "RayTrainWorker" in " ".join(process.cmdline())]


DRIVER = """
import json, sys
from pathlib import Path
from llm4seg.config import Config
from llm4seg.cluster.session import ray_session
from llm4seg.cluster.train import train_on_ray
config = Config.parse(json.loads(Path(sys.argv[1]).read_text()))
with ray_session(config.cluster):
    outcome = train_on_ray(config)
Path(sys.argv[2]).write_text(json.dumps(outcome.history))
"""


def start_driver(config: Config, folder: Path) -> subprocess.Popen[bytes]:
    import json

    (folder / "params.json").write_text(json.dumps(config.plain()))
    command = [sys.executable, "-c", DRIVER, str(folder / "params.json"), str(folder / "history.json")]
    return subprocess.Popen(command, start_new_session=True, cwd=Path(__file__).parents[2])


def wait_for_checkpoints(config: Config, number: int) -> None:
    deadline = time.monotonic() + 120
    while len(list(config.paths.runs.glob("train-*/checkpoint_*"))) < number:
        assert time.monotonic() < deadline, "no checkpoint appeared"
        time.sleep(0.1)


def test_a_killed_worker_changes_nothing(group: None, config: Config, tmp_path: Path) -> None:
    config = config.override({"training.epochs": 12})
    undisturbed = fit(config, LocalRun(tmp_path / "alone"))
    driver = start_driver(config, tmp_path)
    wait_for_checkpoints(config, 1)
    workers_of(driver.pid)[0].send_signal(signal.SIGKILL)
    assert driver.wait(timeout=240) == 0
    assert_same(pd.read_json(tmp_path / "history.json").to_dict("records"), undisturbed)


def test_a_killed_driver_is_gone_on_with(group: None, config: Config, tmp_path: Path) -> None:
    config = config.override({"training.epochs": 12})
    undisturbed = fit(config, LocalRun(tmp_path / "alone"))
    driver = start_driver(config, tmp_path)
    wait_for_checkpoints(config, 2)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    saved = max(config.paths.runs.glob("train-*/checkpoint_*"))
    second = start_driver(config, tmp_path)
    assert second.wait(timeout=240) == 0
    assert_same(pd.read_json(tmp_path / "history.json").to_dict("records"), undisturbed)
    assert saved.exists() or max(config.paths.runs.glob("train-*/checkpoint_*")) > saved
