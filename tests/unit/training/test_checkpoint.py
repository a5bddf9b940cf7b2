"""A checkpoint comes back bit for bit, or is called damaged; nothing in it is ever unpickled."""

import ast
import os
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from llm4seg.models.saved import WEIGHTS
from llm4seg.training.checkpoint import DESCRIPTION, STATE, Checkpoint, DamagedCheckpoint, Progress
from llm4seg.training.resume import newest
from llm4seg.training.run import LocalRun
from tests.import_graph import module_files

FILES = (DESCRIPTION, STATE, WEIGHTS)
ROW = {"epoch": 1, "train_loss": 0.1 + 0.2, "val_loss": 1 / 3, "val_dice": 0.5, "lr": 1e-3}


def checkpoint(epochs: int = 1) -> Checkpoint:
    tensors = {"a.weight": torch.randn(3, 4), "b.num_batches_tracked": torch.tensor(7)}
    progress = Progress([ROW] * epochs, 0.5, 3, 0.7, {"last_epoch": 9})
    return Checkpoint(progress, tensors, {"exp_avg/a.weight": torch.randn(3, 4), "step": torch.tensor(9)}, tensors)


def written(folder: Path, epochs: int = 1) -> Path:
    folder.mkdir(parents=True)
    checkpoint(epochs).write(folder)
    return folder


def test_it_comes_back_bit_for_bit(tmp_path: Path) -> None:
    before = checkpoint()
    before.write(tmp_path)
    after = Checkpoint.read(tmp_path)
    assert after.progress == before.progress
    for part in ("model", "optimizer", "weights"):
        one, other = getattr(before, part), getattr(after, part)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", FILES)
def test_any_byte_that_changed_is_noticed(tmp_path: Path, name: str) -> None:
    """Or changes nothing, as a blank in JSON does."""
    folder, draw = written(tmp_path / "checkpoint"), random.Random(name)
    whole, progress = (folder / name).read_bytes(), Checkpoint.read(folder).progress
    for _ in range(100):
        damaged = bytearray(whole)
        damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        (folder / name).write_bytes(damaged)
        try:
            found = Checkpoint.read(folder).progress
        except DamagedCheckpoint:
            continue
        assert name == DESCRIPTION
        assert found == progress


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99, None])
def test_half_written_or_missing_falls_back_to_the_one_before(
    tmp_path: Path, name: str, share: float | None, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path / "checkpoint-before", epochs=1)
    file = written(tmp_path / "checkpoint", epochs=2) / name
    if share is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    found = newest(LocalRun(tmp_path))
    assert found is not None
    assert len(found.progress.history) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"{tmp_path}/checkpoint")
    assert told.endswith("; trying the one before\n")
    assert told.count("\n") == 1


def test_nothing_sound_is_a_fresh_start(tmp_path: Path) -> None:
    assert newest(LocalRun(tmp_path)) is None
    (written(tmp_path / "checkpoint") / STATE).write_bytes(b"")
    assert newest(LocalRun(tmp_path)) is None


@pytest.mark.parametrize("killed_at", range(1, 5))
def test_killed_between_two_renames_the_newest_is_still_found(
    tmp_path: Path, killed_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four renames make a checkpoint, the first two for its new folder; a kill loses nothing that was whole."""
    run = LocalRun(tmp_path)
    for epochs in (1, 2):
        run.report(None, checkpoint(epochs).write)
    calls, rename = [], Path.rename

    def killed(path: Path, target: Any) -> Path:
        calls.append(path)
        if len(calls) == killed_at:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", killed)
    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        run.report(None, checkpoint(3).write)
    found = newest(run)
    assert found is not None
    assert len(found.progress.history) == (2 if killed_at <= 2 else 3)


def test_a_full_disk_is_an_error_and_no_checkpoint(tmp_path: Path) -> None:
    """In a process of its own that may write no file above 100 bytes."""
    run = LocalRun(tmp_path)
    run.report(None, checkpoint(1).write)
    if (child := os.fork()) == 0:
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        try:
            run.report(None, checkpoint(2).write)
        except OSError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint"]
    found = newest(run)
    assert found is not None
    assert len(found.progress.history) == 1


def test_a_checkpoint_holds_no_pickle(tmp_path: Path) -> None:
    for file in written(tmp_path / "checkpoint").iterdir():
        assert file.suffix in (".json", ".safetensors")
        assert not zipfile.is_zipfile(file)  # what torch.save writes


def test_nothing_unpickles_in_the_project() -> None:
    """torch.load only with weights_only=True, and no pickle module at all."""
    for name, file in module_files().items():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [getattr(node, "module", None), *(alias.name for alias in node.names)]
                assert not {"pickle", "cloudpickle", "dill", "joblib"} & set(names), f"{name} imports a pickle module"
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "np.load", "numpy.load"):
                options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                wanted = {"weights_only": "True"} if "torch" in ast.unparse(node.func) else {"allow_pickle": "False"}
                assert wanted.items() <= options.items(), f"{file}:{node.lineno}"
