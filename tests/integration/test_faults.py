"""Faults on the real Ray: whatever dies, hangs or refuses, the training ends as the undisturbed one does."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from llm4seg.config import Config
from llm4seg.models.saved import WEIGHTS
from llm4seg.training.run import LocalRun, Row
from llm4seg.training.trainer import fit
from llm4seg.utils.files import sha256_file
from tests.integration.test_engines import assert_same
from tests.servers import BUCKET, S3, free_port
from tests.tcp_proxy import TCPProxy
from tests.training import OFTEN, Training, history_of, wait_until, weights_of
from tests.worker_group import fit_on

STEPS = 6  # of an epoch


@pytest.fixture(scope="module")
def undisturbed(group: None, workspace: Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Row], str]:
    """The history and the weights' sha256 of one process that nothing happens to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    history = fit(workspace.override(OFTEN), LocalRun(folder))
    return history, sha256_file(folder / "checkpoint" / WEIGHTS)


@pytest.fixture
def config(config: Config) -> Config:
    return config.override(OFTEN)


def assert_unharmed(training: Training, undisturbed: tuple[list[Row], str]) -> None:
    """It ended well, bit for bit as the undisturbed one, and left nothing behind."""
    assert training.end() == 0, training.shown()
    assert_same(history_of(training.config), undisturbed[0])
    assert weights_of(training.config) == undisturbed[1]
    assert not training.config.paths.runs.exists() or not list(training.config.paths.runs.iterdir())
    assert training.left() == []


def assert_one_line(training: Training, code: int, *words: str) -> None:
    """It ended badly, told why in its last line, and left no process or temporary file."""
    assert training.end() == code, training.shown()
    assert "Traceback" not in training.shown()
    last = training.shown().splitlines()[-1]
    assert last.startswith("train: ")
    for word in words:
        assert word in last
    assert training.left() == []


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_a_worker_killed_at_a_random_step(
    config: Config, tmp_path: Path, undisturbed: tuple[list[Row], str], seed: int
) -> None:
    training, draw = Training(config, tmp_path), random.Random(seed)
    training.reach(draw.randrange(4), draw.randrange(1, STEPS))
    training.worker().kill()
    assert_unharmed(training, undisturbed)
    assert "train: a worker failed: " in training.shown()


def test_sigterm_saves_within_the_epoch_and_the_next_run_goes_on_from_that_step(
    group: None, config: Config, tmp_path: Path
) -> None:
    """With no other checkpoint within the epoch than the one that SIGTERM asks for."""
    config = config.override({"cluster.checkpoint_minutes": None, "training.epochs": 40})
    history = fit(config, LocalRun(tmp_path / "alone"))
    training = Training(config, tmp_path)
    training.reach(1, 0)
    training.process.send_signal(signal.SIGTERM)
    assert_one_line(training, 143, "run it again")
    epochs, step = training.completed()
    assert 0 < step <= STEPS
    again = Training(config, tmp_path)
    assert_unharmed(again, (history, sha256_file(tmp_path / "alone" / "checkpoint" / WEIGHTS)))
    assert again.epochs_printed()[0] == epochs + 1


@pytest.mark.slow
def test_two_faults_in_a_row(config: Config, tmp_path: Path, undisturbed: tuple[list[Row], str]) -> None:
    """The second before the first is got over."""
    training = Training(config, tmp_path)
    training.reach(1, 2)
    first = training.worker()
    first.kill()
    training.worker(other_than=(first.pid,)).kill()
    assert_unharmed(training, undisturbed)


@pytest.mark.slow
def test_rays_controller_killed(config: Config, tmp_path: Path, undisturbed: tuple[list[Row], str]) -> None:
    training = Training(config, tmp_path)
    training.reach(1, 2)
    training.actor("TrainController").kill()
    assert_unharmed(training, undisturbed)


@pytest.mark.slow
def test_the_driver_killed_and_run_again(config: Config, tmp_path: Path, undisturbed: tuple[list[Row], str]) -> None:
    """Twice, each time within an epoch; the second time Ray's own list of checkpoints is half-written."""
    training = Training(config, tmp_path)
    training.reach(1, 3)
    training.kill()
    completed = training.completed()
    training = Training(config, tmp_path)
    training.reach(completed[0] + 1, 1)
    training.kill()
    (index,) = config.paths.runs.glob("train-*/checkpoint_manager_snapshot.json")
    index.write_bytes(index.read_bytes()[:100])
    training = Training(config, tmp_path)
    assert_unharmed(training, undisturbed)
    assert training.epochs_printed()[0] > completed[0] + 1, "trained from the start again"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["half", "missing", "changed", "gone"])
def test_a_damaged_last_checkpoint_falls_back_and_says_so(
    config: Config, tmp_path: Path, undisturbed: tuple[list[Row], str], how: str
) -> None:
    config = config.override({"cluster.launcher": "process"})  # which checkpoint counts is no matter of Ray's
    training = Training(config, tmp_path)
    training.reach(2, 2)
    training.kill()
    newest = training.whole_checkpoints()[-1]
    state = newest / "state.safetensors"
    match how:
        case "half":
            state.write_bytes(state.read_bytes()[:1000])
        case "missing":
            state.unlink()
        case "changed":
            state.write_bytes(state.read_bytes()[:-1] + b"?")
        case "gone":
            subprocess.run(["rm", "-r", str(newest)], check=True)
    training = Training(config, tmp_path)
    assert_unharmed(training, undisturbed)
    if how != "gone":
        assert "trying the one before" in training.shown()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_hangs_is_ended_and_replaced(
    config: Config, tmp_path: Path, undisturbed: tuple[list[Row], str], workers: int
) -> None:
    """Stopped, a process cannot even watch itself: Ray's health check ends it, and the other worker ends itself."""
    changes = {"optimizer.name": "sgd", "optimizer.lr": 0.001, "training.batch_size": 4}
    config = config.override(changes | {"cluster.timeout": 60, "cluster.workers": workers})
    alone = fit_on(workers, config, tmp_path / "alone")
    training = Training(config, tmp_path)
    training.reach(1, 2)
    stopped = training.worker()
    stopped.suspend()
    assert training.end() == 0, training.shown()
    assert_same(history_of(config), alone)
    assert "cluster.timeout" in training.shown()
    assert training.left() == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB, smaller than a checkpoint."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_ends_in_one_line_and_loses_nothing(
    config: Config, tmp_path: Path, undisturbed: tuple[list[Row], str], small_disk: Path
) -> None:
    training = Training(config, tmp_path)
    training.reach(2, 1)
    training.kill()
    full = Training(config.override({"cluster.max_failures": 1}), tmp_path, TMPDIR=str(small_disk))
    assert_one_line(full, 1, "cluster.max_failures = 1", "No space left on device")
    ours = [left for left in small_disk.iterdir() if not left.name.startswith("pymp-")]  # Ray's dashboard's, and empty
    assert ours == []
    training = Training(config, tmp_path)
    assert_unharmed(training, undisturbed)


@pytest.mark.slow
def test_a_worker_that_always_fails_ends_in_one_line(config: Config, tmp_path: Path) -> None:
    training = Training(config.override({"cluster.max_failures": 1, "training.epochs": 100}), tmp_path)
    for _ in range(2):  # each time in the midst of training; what dies while it starts is started again uncounted
        epochs, _ = training.completed()
        training.reach(epochs + 1, 1)
        training.worker().kill()
    assert_one_line(training, 1, "a worker failed more often than cluster.max_failures = 1 allows")


@pytest.mark.parametrize("launcher", ["process", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_loss_that_is_no_number_ends_in_one_line(config: Config, tmp_path: Path, launcher: str) -> None:
    config = config.override({"optimizer.name": "sgd", "optimizer.lr": 1e30, "optimizer.schedule": "constant"})
    config = config.override({"cluster.launcher": launcher})
    assert_one_line(Training(config, tmp_path), 1, "the last checkpoint is kept", "optimizer.lr", "step")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_memory_that_does_not_suffice_ends_in_one_line(config: Config, tmp_path: Path, workers: int) -> None:
    """An adapter so wide that no machine holds its weights; at once, since it would only happen again."""
    too_wide = {"model.llm.adapter.kind": "bottleneck", "model.llm.adapter.width": 10**13}
    training = Training(config.override(too_wide | {"cluster.workers": workers}), tmp_path)
    assert_one_line(training, 1, "memory is full", "weights", "training.batch_size")
    assert "a worker failed" not in training.shown()


SECRETS = {"AWS_ACCESS_KEY_ID": "AKIAmarkedidentity", "AWS_SECRET_ACCESS_KEY": "markedsecretkey"}
SECRETS |= {"AWS_SESSION_TOKEN": "markedsessiontoken"}


@pytest.mark.slow
def test_no_credential_is_written_anywhere(config: Config, tmp_path: Path) -> None:
    """Neither into the output, nor into a file of the run, nor into Ray's logs; also when it is killed and fails."""
    training = Training(config.override({"cluster.max_failures": 0}), tmp_path, **SECRETS)
    training.reach(1, 1)
    session = Path(os.path.realpath("/tmp/ray/session_latest"))
    training.worker().kill()
    assert training.end() == 1
    again = Training(config, tmp_path, **SECRETS)
    assert again.end() == 0
    for folder in (tmp_path, session, Path(os.path.realpath("/tmp/ray/session_latest"))):
        for file in folder.rglob("*"):
            if file.is_file():
                content = file.read_bytes()
                assert not [name for name, secret in SECRETS.items() if secret.encode() in content], file


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "epochs"), [("ray", 1), ("ray", 3), ("process", 2)])
def test_a_storage_that_refuses_for_a_while(
    config: Config, tmp_path: Path, undisturbed: tuple[list[Row], str], s3: S3, launcher: str, epochs: int
) -> None:
    """The S3 server cannot be reached for 20 seconds, wherever the workers and Ray's controller are just then."""
    door = TCPProxy(s3.port)
    address = f"s3://{BUCKET}/runs?endpoint_override=127.0.0.1:{door.port}&scheme=http"
    training = Training(config.override({"cluster.storage": address, "cluster.launcher": launcher}), tmp_path)
    wait_until(lambda: f"epoch {epochs}/" in training.shown(), training.shown())
    door.shut()
    time.sleep(20)
    assert training.process.poll() is None, training.shown()
    door.open()
    assert_unharmed(training, undisturbed)
    left = boto3.client("s3", endpoint_url=s3.url).list_objects_v2(Bucket=BUCKET, Prefix="runs/train-")
    assert left["KeyCount"] == 0


@pytest.mark.slow
def test_a_storage_that_is_not_there_ends_in_one_line(config: Config, tmp_path: Path, s3: S3) -> None:
    address = f"s3://{BUCKET}/runs?endpoint_override=127.0.0.1:{free_port()}&scheme=http"
    changes = {"cluster.storage": address, "cluster.storage_patience": 5}
    assert_one_line(Training(config.override(changes), tmp_path), 1, "Could not connect")
