"""What workers exchange: over direct lines on one machine, through gloo elsewhere, and the same bits from both."""

import socket
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from llm4seg.config import Config
from llm4seg.runtime import sockets
from llm4seg.runtime.collectives import all_gather, all_reduce, all_reduce_max
from llm4seg.training.checkpoint import Checkpoint
from llm4seg.training.trainer import fit
from tests.worker_group import GroupRun, fit_on, on_group

CPU = torch.device("cpu")
RESET = ("[Errno 104] Connection reset by peer", "[Errno 32] Broken pipe")  # as fast as the other closes
LARGER = sockets.LARGEST // 4 + 1  # float32 numbers that are too many for a line


def exchanges(rank: int, folder: str, apart: bool) -> dict[str, Any]:
    """A bit of everything; `apart`: as on machines of their own, where the path of another's socket leads nowhere."""
    tempfile.tempdir = folder
    if apart:
        set_apart()
    torch.manual_seed(rank)
    tensors = {"vector": torch.randn(7), "matrix": torch.randn(4, 6).t()[1:], "large": torch.randn(LARGER)}
    tensors |= {"scalar": torch.tensor(rank), "double": torch.randn(3, dtype=torch.float64)}
    found: dict[str, Any] = {"lines": sockets.between_workers() is not None, "agreed": all_reduce_max(rank * 5, CPU)}
    for name, tensor in tensors.items():
        found[name] = [tensor.tolist(), all_gather(tensor).tolist(), all_reduce(tensor).tolist()]
    return found | {"left": [path.name for path in Path(folder).iterdir()]}


def set_apart() -> None:
    paths = sockets._paths
    sockets._paths = lambda mine: [f"/another/machine{path}" for path in paths(mine)]


@pytest.mark.parametrize("apart", [False, True], ids=["one machine", "apart"])
def test_every_worker_gets_what_all_have_and_the_same_sum(tmp_path: Path, apart: bool) -> None:
    everyones = on_group(3, exchanges, str(tmp_path), apart)
    for name in ("vector", "matrix", "large", "scalar", "double"):
        for one in everyones:
            assert one[name][1] == [other[name][0] for other in everyones]
            assert one[name][2] == everyones[0][name][2]
        whole = torch.tensor([other[name][0] for other in everyones], dtype=torch.float64).sum(0)
        torch.testing.assert_close(
            torch.tensor(everyones[0][name][2], dtype=torch.float64), whole, rtol=1e-5, atol=1e-5
        )
    assert [one["agreed"] for one in everyones] == [10, 10, 10]
    assert [one["lines"] for one in everyones] == [not apart] * 3
    assert everyones[0]["left"] == []


def test_sums_have_the_same_bits_on_one_machine_and_apart(tmp_path: Path) -> None:
    """A worker that is started again may find the others elsewhere."""
    together, apart = (on_group(3, exchanges, str(tmp_path), apart)[0] for apart in (False, True))
    assert (together["lines"], apart["lines"]) == (True, False)
    assert all(together[name] == apart[name] for name in together.keys() - {"lines"})


def test_a_training_is_the_same_on_one_machine_and_apart(config: Config, tmp_path: Path) -> None:
    config = config.override({"training.batch_size": 8, "engine.zero": 1})
    on_group(2, fit_apart, config.override({"cluster.workers": [1, 2]}).plain(), tmp_path / "apart")
    fit_on(2, config, tmp_path / "together")
    one, other = (Checkpoint.read(tmp_path / name / "checkpoint") for name in ("together", "apart"))
    assert one.progress.history == other.progress.history
    assert all(torch.equal(tensor, other.model[name]) for name, tensor in one.model.items())


def fit_apart(rank: int, params: dict[str, Any], folder: Path) -> None:
    set_apart()
    fit(Config.parse(params), GroupRun(rank, 2, folder))
    assert sockets.between_workers() is None


@pytest.mark.parametrize("name", ["long" * 30, "absent"])
def test_where_no_socket_can_be_made_gloo_serves_all(tmp_path: Path, name: str) -> None:
    """One worker's folder for temporary files has a name longer than a socket's may be, or takes no file."""
    (tmp_path / ("long" * 30)).mkdir()
    assert on_group(2, without_a_socket, str(tmp_path / name)) == [(True, [0, 1]), (True, [0, 1])]
    assert not list(tmp_path.glob("*/*"))


def without_a_socket(rank: int, folder: str) -> tuple[bool, list[int]]:
    if rank == 1:
        tempfile.tempdir = folder
    return sockets.between_workers() is None, all_gather(torch.tensor(rank)).tolist()


def test_a_worker_that_is_late_is_waited_for() -> None:
    assert on_group(2, late) == [[0, 1], [0, 1]]


def late(rank: int) -> list[int]:
    all_reduce_max(0, CPU)
    if rank == 1:
        time.sleep(10 * sockets.PATIENCE)
    found: list[int] = all_gather(torch.tensor(rank)).tolist()
    return found


def test_a_worker_that_goes_or_says_nothing_is_named() -> None:
    gone, silent = on_group(2, waiting)[0]
    assert gone in {f"Connection to worker 1: {how}" for how in ("closed", *RESET)}
    assert silent == "Connection to worker 1: timed out"


def waiting(rank: int) -> list[str]:
    sockets.LIMIT = 0.1
    said = []
    for leave in (True, False):
        sockets._known = None
        lines = sockets.between_workers()
        assert lines
        if rank == 1 and leave:
            lines.close()
        if rank == 0:
            with pytest.raises(ConnectionError) as raised:
                all_gather(torch.tensor(rank))
            said.append(str(raised.value))
    return said


def test_a_line_that_ends_is_no_message() -> None:
    """Half a message and then the end, without an error of the system's."""
    mine, others = socket.socketpair()
    others.sendall(b"half")
    others.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionError, match="Connection to worker 1: closed"):
        sockets.Lines({1: mine}, 0).gather(torch.zeros(1, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))
    mine.close()
    others.close()
