"""What ended a training is one line: the cause, not its echoes, and what to do about it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.train import ControllerError, WorkerGroupError

from llm4seg.cluster import storage
from llm4seg.cluster.failures import FailFast, is_the_controllers, root_cause, to_user_error
from llm4seg.cluster.out_of_memory import explained_out_of_memory, is_out_of_memory, out_of_memory
from llm4seg.cluster.ray_internals import WorkerHealthCheckTimeoutError
from llm4seg.cluster.storage import RunFolder, make_temporary_folder, retrying, sweep
from llm4seg.utils.errors import InputError
from tests.import_graph import ROOT


def full(tensors: int = 10**15) -> RuntimeError:
    """What torch really says when there is no memory left."""

    def backward() -> torch.Tensor:
        return torch.empty(tensors)

    try:
        backward()
    except RuntimeError as error:
        return error
    pytest.skip("this machine has petabytes of memory")


def test_a_full_memory_names_the_tensors_and_what_to_lower() -> None:
    error = full()
    assert is_out_of_memory(error)
    line = str(out_of_memory(error))
    assert "\n" not in line
    assert "while making gradients" in line
    for parameter in ("training.batch_size", "engine.accumulation", "model.llm.checkpointing", "engine.offload"):
        assert parameter in line


def test_a_full_device_is_the_same() -> None:
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ...")
    assert is_out_of_memory(error)
    assert "(CUDA out of memory. Tried to allocate 2.00 GiB.)" in str(out_of_memory(error))


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")]
)
def test_memory_that_others_than_torch_find_full(error: RuntimeError | MemoryError) -> None:
    assert is_out_of_memory(error)
    assert "lower training.batch_size" in str(out_of_memory(error))


def test_other_errors_are_not_taken_for_it() -> None:
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_a_full_memory_is_one_line_and_other_errors_stay_what_they_are() -> None:
    with pytest.raises(InputError, match="memory is full"), explained_out_of_memory():
        raise full()
    with pytest.raises(RuntimeError, match="shapes"), explained_out_of_memory():
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


def test_the_cause_is_told_not_its_echoes() -> None:
    errors = {
        0: RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer"),
        1: OSError("Traceback (most recent call last):\n  ...\nOSError: [Errno 28] No space left on device"),
    }
    assert root_cause(errors.values()) == "OSError: [Errno 28] No space left on device"
    line = str(to_user_error(WorkerGroupError("...", errors), retries=3))
    assert line.startswith("a worker failed more often than cluster.max_failures = 3 allows: OSError: [Errno 28]")
    assert "\n" not in line
    assert "Connection closed" in root_cause([errors[0]])


def test_a_process_that_hangs_is_told_in_our_words() -> None:
    assert root_cause([WorkerHealthCheckTimeoutError("a long story")]) == (
        "its process hangs: it has not answered for cluster.timeout"
    )


def test_a_process_that_is_gone_is_told_in_our_words() -> None:
    """It cannot say why any more; one that made no step for cluster.timeout has ended itself."""
    said = (
        "A worker health check failed.\nThe actor is dead because its worker process has died. Worker exit type: "
        "SYSTEM_ERROR Worker exit detail: Worker unexpectedly exits with a connection error code 2. End of file."
    )
    line = str(to_user_error(WorkerGroupError("...", {0: RuntimeError(said)}), retries=0))
    assert line.startswith("a worker failed more often than cluster.max_failures = 0 allows: its process ended: ")
    assert "made no step for cluster.timeout" in line


def test_a_process_that_ray_ended_for_its_memory_is_told_in_our_words() -> None:
    raised = OutOfMemoryError(
        "Task was killed ... Refer to the documentation on how to address the out of memory issue: ..."
    )
    assert root_cause([raised]).startswith("the node's memory is full")


def test_what_is_worth_another_controller() -> None:
    assert is_the_controllers(ControllerError(OSError("connection refused")))
    assert is_the_controllers(RayActorError())
    assert is_the_controllers(ControllerError(OutOfMemoryError("a helper of the controller")))
    assert not is_the_controllers(ControllerError(KeyError("a bug")))
    assert not is_the_controllers(WorkerGroupError("...", {0: OSError("disk full")}))


def test_a_users_mistake_ends_a_training_for_good() -> None:
    """Ray's controller starts workers again after any error of theirs; it ends when a callback raises."""
    mistake = InputError("data/prepared: cannot be read")
    with pytest.raises(InputError) as raised:
        FailFast().after_exception(None, {0: RuntimeError("Connection closed by peer"), 1: mistake})
    assert to_user_error(ControllerError(raised.value), retries=3) is mistake
    FailFast().after_exception(None, {0: RuntimeError("disk")})


def test_patience_ends() -> None:
    asked = []

    def refuse() -> None:
        asked.append(1)
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        retrying(1.0)(refuse)
    assert len(asked) > 1
    with pytest.raises(KeyError):  # no matter of patience
        retrying(60.0)(lambda: {}["absent"])


def test_a_runs_folder(tmp_path: Path) -> None:
    folder = RunFolder.at(str(tmp_path), "train-1")
    assert folder.checkpoints() == []
    for name in ("checkpoint_2026-01-02", "checkpoint_2026-01-10", "other"):
        (tmp_path / "train-1" / name).mkdir(parents=True)
    (tmp_path / "train-1" / "checkpoint_manager_snapshot.json").write_text("{half")
    assert folder.checkpoints() == ["checkpoint_2026-01-10", "checkpoint_2026-01-02"]
    folder.delete_if_there("checkpoint_manager_snapshot.json")
    folder.delete_if_there("checkpoint_manager_snapshot.json")
    assert not (tmp_path / "train-1" / "checkpoint_manager_snapshot.json").exists()
    folder.forget()
    folder.forget()
    assert not (tmp_path / "train-1").exists()
    with pytest.raises(InputError, match=r"cluster.storage: found 'runs', allowed: an absolute path or s3"):
        RunFolder.at("runs", "train-1")


def test_temporary_folders_of_dead_processes_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.tempfile, "tempdir", str(tmp_path))
    mine = make_temporary_folder()
    dead = subprocess.run(
        [sys.executable, "-c", "from llm4seg.cluster.storage import *; print(make_temporary_folder())"],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    foreign = tmp_path / f"{storage.PREFIX}x"
    foreign.mkdir()
    assert Path(dead).exists()
    sweep()
    assert not Path(dead).exists()
    assert mine.exists()
    assert foreign.exists()
