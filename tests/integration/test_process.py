"""`cluster.launcher: process`: the training of the stage in its own process, without Ray, whatever happens to it."""

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from llm4seg.cluster.process_run import train_in_process
from llm4seg.cluster.runs import run_folder, run_name
from llm4seg.config import Config
from llm4seg.models.saved import WEIGHTS
from llm4seg.training.run import LocalRun, Row
from llm4seg.training.trainer import fit
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import sha256_file
from tests.import_graph import ROOT
from tests.servers import BUCKET, S3
from tests.training import OFTEN, Training, history_of, weights_of

NO_RAY = """
import sys
from pathlib import Path
from llm4seg.config import Config
from llm4seg.utils.logs import configure
from pipelines.train import train
configure()
train(Config.load(Path(sys.argv[1])))
assert not [name for name in sys.modules if name.split(".")[0] == "ray"]
"""


@pytest.fixture
def config(config: Config) -> Config:
    return config.override(OFTEN | {"cluster.launcher": "process"})


@pytest.fixture(scope="module")
def undisturbed(group: None, workspace: Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Row], str]:
    """The history and the weights' sha256 of a run that nothing happens to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    history = fit(workspace.override(OFTEN), LocalRun(folder))
    return history, sha256_file(folder / "checkpoint" / WEIGHTS)


def assert_unharmed(training: Training, undisturbed: tuple[list[Row], str]) -> None:
    assert training.end() == 0, training.shown()
    assert history_of(training.config) == undisturbed[0]
    assert weights_of(training.config) == undisturbed[1]
    assert not list(training.config.paths.runs.iterdir())
    assert training.left() == []


def test_the_stage_computes_the_same_without_ray(
    config: Config, tmp_path: Path, undisturbed: tuple[list[Row], str]
) -> None:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(config.plain()))
    command = [sys.executable, "-c", NO_RAY, str(tmp_path / "params.yaml")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("epoch")] == [
        f"{epoch}/8" for epoch in range(1, 9)
    ]
    assert (history_of(config), weights_of(config)) == undisturbed


def expect_refusal(first: Training) -> None:
    """Start the same run again, while the first is suspended, so that it is still there."""
    first.process.send_signal(signal.SIGSTOP)
    second = Training(first.config, first.folder)
    assert second.end() == 1, second.shown()
    place = rf"on {socket.gethostname()} \(pid {first.process.pid}\) since 20\d\d-"
    assert re.fullmatch(rf"train: this run is under way already, {place}.*\n", second.shown())


def test_killed_and_then_stopped_by_sigterm_it_goes_on(
    config: Config, tmp_path: Path, undisturbed: tuple[list[Row], str]
) -> None:
    training = Training(config, tmp_path)
    training.reach(1, 3)
    expect_refusal(training)
    training.kill()
    killed_at = training.completed()
    training = Training(config, tmp_path)
    training.reach(killed_at[0] + 1, 1)
    training.process.send_signal(signal.SIGTERM)
    assert training.end() == 143, training.shown()
    assert training.shown().splitlines()[-1] == "train: a checkpoint is saved; run it again to go on from there"
    assert training.epochs_printed()[0] == killed_at[0] + 1
    assert training.left() == []
    assert len(training.checkpoints()) <= config.cluster.keep
    assert_unharmed(Training(config, tmp_path), undisturbed)


def test_a_step_that_takes_too_long_ends_the_process(config: Config, tmp_path: Path) -> None:
    training = Training(config.override({"cluster.timeout": 0.001}), tmp_path)
    assert training.end() == 1
    assert "Timeout (0:00:00.001000)!" in training.shown()


@pytest.mark.usefixtures("group")
def test_checkpoints_in_a_bucket(config: Config, s3: S3) -> None:
    address = f"s3://{BUCKET}/runs?endpoint_override=127.0.0.1:{s3.port}&scheme=http"
    config = config.override({"cluster.storage": address, "training.epochs": 2, "cluster.checkpoint_minutes": None})
    name = run_name(config)
    outcome = train_in_process(config, name, lambda event: None)
    names = run_folder(config, name).checkpoints()
    assert len(names) == config.cluster.keep
    assert names[0] == outcome.checkpoint
    with outcome.weights() as weights:
        assert weights.exists()
    outcome.forget()
    assert run_folder(config, name).checkpoints() == []


@pytest.mark.usefixtures("group")
def test_engines_that_share_a_process_leave_no_marks(config: Config) -> None:
    """As trials do that search for an engine."""
    config = config.override({"training.epochs": 1, "cluster.checkpoint_minutes": None})
    engines = [{"engine.name": "torch"}, {"engine.name": "deepspeed", "engine.zero": 3}]
    found = [
        train_in_process(config.override(engine), f"train-{number}", print).history
        for number, engine in enumerate([*engines, *engines])
    ]
    assert found[:2] == found[2:]
    # ZeRO 3 replaces it for the whole process, by a function that rounds otherwise where matrices are large
    assert torch.nn.functional.linear.__module__ != "deepspeed.runtime.zero.linear"


@pytest.mark.usefixtures("group")
def test_a_storage_that_refuses_ends_it(config: Config, tmp_path: Path) -> None:
    """Although the upload goes on beside the training, which does not wait for the last one."""
    (tmp_path / "file").write_text("")
    config = config.override({"cluster.storage": str(tmp_path / "file"), "cluster.storage_patience": 0})
    with pytest.raises(OSError, match="file"):
        train_in_process(config.override({"training.epochs": 1}), "train-1", lambda event: None)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"cluster.workers": 2}, r"cluster\.workers: found 2, allowed with cluster\.launcher: process: 1"),
        ({"cluster.workers": [1, 2]}, r"cluster\.workers: found \[1, 2\], allowed"),
        ({"cluster.address": "auto"}, r"cluster\.address: found auto, allowed with cluster\.launcher: process: null"),
    ],
)
def test_what_one_process_cannot_be(config: Config, change: dict[str, object], found: str) -> None:
    with pytest.raises(InputError, match=found):
        config.override(change)
