"""Safetensors files: read like the safetensors package reads them, from any storage, and refused when damaged."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from llm4seg.llm_sources.safetensors_file import DTYPES, SafetensorsFile
from llm4seg.llm_sources.storage import LocalFolder, read_spans
from llm4seg.utils.errors import InputError


class CountingFolder(LocalFolder):
    """A folder that notes what is read of it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.reads: list[tuple[int, int]] = []

    def read(self, name: str, start: int, stop: int) -> memoryview:
        self.reads.append((start, stop))
        return super().read(name, start, stop)


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    drawn = {name: torch.randn(3, 5, generator=generator) for name in DTYPES}
    tensors = {name: (values * 9).to(DTYPES[name]) for name, values in drawn.items()}
    return tensors | {"scalar": torch.tensor(3.5), "empty": torch.empty(0, 4)}


def written(folder: Path, tensors: dict[str, torch.Tensor]) -> CountingFolder:
    save_file(tensors, folder / "x.safetensors", {"note": "kept out"})
    return CountingFolder(folder)


def test_reads_what_the_package_reads(tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    file = SafetensorsFile(written(tmp_path, tensors), "x.safetensors")
    expected = load_file(tmp_path / "x.safetensors")
    found = file.read(list(file.tensors))
    assert found.keys() == expected.keys() == tensors.keys()
    for name, tensor in found.items():
        assert (tensor.dtype, tensor.shape) == (expected[name].dtype, expected[name].shape)
        assert torch.equal(tensor.view(torch.uint8), expected[name].view(torch.uint8)) if tensor.dim() else True
        assert file.nbytes([name]) == tensor.nbytes
    assert found["scalar"] == 3.5


def test_reads_the_header_and_the_bytes_asked_for(tmp_path: Path) -> None:
    """Neighbours at once, and nothing between those that are none."""
    tensors = {name: torch.full((4, 8), float(number)) for number, name in enumerate("abcdef")}
    storage = written(tmp_path, tensors)
    file = SafetensorsFile(storage, "x.safetensors")
    (start,) = struct.unpack("<Q", (tmp_path / "x.safetensors").read_bytes()[:8])
    assert storage.reads == [(0, 8), (8, 8 + start)]
    storage.reads.clear()
    found = file.read(["e", "a", "b"])
    data, size = 8 + start, 4 * 8 * 4
    assert storage.reads == [(data, data + 2 * size), (data + 4 * size, data + 5 * size)]
    assert all(torch.equal(found[name], tensors[name]) for name in "abe")


def test_a_tensor_can_be_written_to_and_the_file_does_not_change(tmp_path: Path) -> None:
    storage = written(tmp_path, {"a": torch.ones(4)})
    SafetensorsFile(storage, "x.safetensors").read(["a"])["a"].zero_()
    assert torch.equal(load_file(tmp_path / "x.safetensors")["a"], torch.ones(4))


def test_parts_across_pages_of_a_file(tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(3 << 16)
    (tmp_path / "x").write_bytes(content)
    spans = {"a": (70_000, 140_000), "b": (140_010, 140_011), "c": (5, 9), "none": (12, 12)}
    parts = read_spans(LocalFolder(tmp_path), "x", spans)
    assert {name: bytes(part) for name, part in parts.items()} == {
        name: content[start:stop] for name, (start, stop) in spans.items()
    }


def with_header(path: Path, header: Any, data: int = 64) -> None:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * data)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("{", "Expecting property name"),
        ("[]", "no attribute 'items'"),
        ({"a": {}}, "data_offsets"),
        ({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 8]}}, "8 bytes for shape"),
        ({"a": {"dtype": "F32", "shape": [4], "data_offsets": [60, 76]}}, "in a file of .*truncated"),
        ({"a": {"dtype": "F32", "shape": [4], "data_offsets": [-16, 0]}}, "a tensor from byte"),
        ({"a": {"dtype": "F32", "shape": "four", "data_offsets": [0, 16]}}, "multiply sequence"),
    ],
)
def test_headers_that_make_no_sense(tmp_path: Path, header: Any, message: str) -> None:
    with_header(tmp_path / "x.safetensors", header)
    with pytest.raises(InputError, match=rf"x\.safetensors: not a readable safetensors file: .*{message}"):
        SafetensorsFile(LocalFolder(tmp_path), "x.safetensors").read([])


def test_a_header_longer_than_the_file(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    with pytest.raises(InputError, match="a header of 1152921504606846976 bytes in a file of 10"):
        SafetensorsFile(LocalFolder(tmp_path), "x.safetensors")


def test_a_dtype_that_torch_lacks(tmp_path: Path) -> None:
    with_header(tmp_path / "x.safetensors", {"a": {"dtype": "F4", "shape": [8], "data_offsets": [0, 4]}})
    file = SafetensorsFile(LocalFolder(tmp_path), "x.safetensors")
    with pytest.raises(InputError, match=r"x\.safetensors: a: found dtype F4, allowed: F64, F32"):
        file.read(["a"])


def test_garbage_of_any_kind_is_an_input_error(tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    storage, random = written(tmp_path, tensors), np.random.default_rng(0)
    good = (tmp_path / "x.safetensors").read_bytes()
    for _ in range(300):
        bad = bytearray(good)
        for place in random.integers(0, 1000, 3):
            bad[place] = random.integers(256)
        (tmp_path / "x.safetensors").write_bytes(bad)
        try:
            file = SafetensorsFile(storage, "x.safetensors")
            file.read(list(file.tensors))
        except InputError as error:
            assert "x.safetensors" in str(error)  # noqa: PT017, a lucky change does no harm
