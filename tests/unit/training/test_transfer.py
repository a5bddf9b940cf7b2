"""Many tensors come to the CPU in few copies, the same to the bit."""

from collections import Counter
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from llm4seg.training.engines import transfer
from llm4seg.training.engines.transfer import to_cpu
from tests.torch_internals import FakeTensorMode, TorchDispatchMode


class Ops(TorchDispatchMode):
    """Counts operations by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[op.overloadpacket.__name__] += 1
        return op(*args, **(kwargs or {}))


def state() -> dict[str, torch.Tensor]:
    """Of three dtypes: scalars, an empty tensor, and one of another layout in memory."""
    torch.manual_seed(0)
    weights = {f"weight {i}": torch.randn(i % 7, 3) for i in range(50)}
    counts = {f"count {i}": torch.tensor(i) for i in range(50)}
    other = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    return weights | counts | {"other": other, "half": torch.randn(3).bfloat16(), "nan": torch.tensor(torch.nan)}


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("piece", [transfer.PIECE, 100])
def test_copies_are_equal_and_independent(monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr(transfer, "PIECE", piece)
    originals = state()
    copies = to_cpu(originals)
    assert [*copies] == [*originals]
    for name, tensor in originals.items():
        assert (copies[name].shape, copies[name].dtype) == (tensor.shape, tensor.dtype)
        assert copies[name].is_contiguous()
        assert bits(copies[name]) == bits(tensor)
    before = {name: bits(tensor) for name, tensor in copies.items()}
    for tensor in originals.values():
        tensor.zero_()
    assert {name: bits(tensor) for name, tensor in copies.items()} == before


def test_files_are_those_of_separate_tensors() -> None:
    separate = {name: tensor.detach().clone().contiguous() for name, tensor in state().items()}
    written = save(to_cpu(state()))
    assert written == save(separate)
    assert load(written).keys() == separate.keys()


def test_a_device_is_waited_for_once_a_dtype() -> None:
    """Tensors that claim to be on CUDA, as torch has them for tracing."""
    with FakeTensorMode(allow_non_fake_inputs=True), Ops() as ops:
        floats = {f"weight {i}": torch.empty(3, 4, device="cuda") for i in range(300)}
        counts = {f"count {i}": torch.empty((), dtype=torch.int64, device="cuda") for i in range(40)}
        copies = to_cpu(floats | counts)
    assert {tensor.device.type for tensor in copies.values()} == {"cpu"}
    assert ops.counts["_to_copy"] == 2
    assert not {"copy_", "clone"} & ops.counts.keys()


def test_large_tensors_are_gathered_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "PIECE", 40)  # ten floats
    sizes = [4, 4, 4, 30, 10, 1]
    with Ops() as ops:
        to_cpu({str(i): torch.zeros(size) for i, size in enumerate(sizes)})
    assert ops.counts["cat"] == 5  # 4 and 4, 4, 30, 10, 1
