"""The safetensors file format: the header's length, the header as JSON, then the tensors' bytes.

Read as by the safetensors package, but from any storage. Format: https://huggingface.co/docs/safetensors
"""

import json
import math
import struct
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llm4seg.llm_sources.storage import LFS_POINTER, Storage, check_no_lfs_pointer, read_spans
from llm4seg.utils.errors import InputError, UserError

LENGTH = struct.Struct("<Q")
LONGEST_HEADER = 100_000_000  # the package's own limit
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class Entry:
    """A tensor's entry in the header: its dtype, its shape, and its bytes from `start` to before `stop` in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class SafetensorsFile:
    """An opened safetensors file; `tensors` is the entry of each tensor. Raises InputError naming a damaged file."""

    def __init__(self, storage: Storage, name: str) -> None:
        self._storage, self._name = storage, name
        self.place = storage.place(name)
        size = storage.size(name)
        if size is None:
            raise InputError(f"{self.place}: no such file")
        try:
            self.tensors = self._parse_header(size)
        except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
            if isinstance(error, UserError):
                raise
            reason = error if isinstance(error, ValueError) else repr(error)
            raise InputError(f"{self.place}: not a readable safetensors file: {reason}") from None

    def _parse_header(self, size: int) -> dict[str, Entry]:
        (length,) = LENGTH.unpack(self._storage.read(self._name, 0, min(LENGTH.size, size)))
        start = LENGTH.size + length
        if length > LONGEST_HEADER or start > size:
            begins = self._storage.read(self._name, 0, min(size, len(LFS_POINTER)))
            check_no_lfs_pointer(self._storage, self._name, begins)
            raise ValueError(f"a header of {length} bytes in a file of {size}")
        header = json.loads(bytes(self._storage.read(self._name, LENGTH.size, start)))
        return {name: _entry(values, start, size) for name, values in header.items() if name != "__metadata__"}

    def nbytes(self, names: Collection[str]) -> int:
        """The number of bytes of these tensors."""
        return sum(self.tensors[name].stop - self.tensors[name].start for name in names)

    def read(self, names: Collection[str]) -> dict[str, Tensor]:
        """Read these tensors, in the file's own dtypes, and no other byte of the data."""
        parts = read_spans(
            self._storage, self._name, {name: (self.tensors[name].start, self.tensors[name].stop) for name in names}
        )
        return {name: self._tensor(name, parts[name]) for name in names}

    def _tensor(self, name: str, data: memoryview) -> Tensor:
        entry = self.tensors[name]
        if entry.dtype not in DTYPES:
            raise InputError(f"{self.place}: {name}: found dtype {entry.dtype}, allowed: {', '.join(DTYPES)}")
        if not data:  # torch makes no tensor of an empty buffer
            return torch.empty(entry.shape, dtype=DTYPES[entry.dtype])
        return torch.frombuffer(data, dtype=DTYPES[entry.dtype]).reshape(entry.shape)


def _entry(values: Any, data: int, size: int) -> Entry:
    """A tensor's entry, checked against the file's size."""
    start, stop = (data + offset for offset in values["data_offsets"])
    entry = Entry(values["dtype"], tuple(values["shape"]), start, stop)
    if not data <= start <= stop <= size:
        raise ValueError(f"a tensor from byte {start} to {stop} in a file of {size}; is it truncated?")
    if entry.dtype in DTYPES and math.prod(entry.shape) * DTYPES[entry.dtype].itemsize != stop - start:
        raise ValueError(f"{stop - start} bytes for shape {list(entry.shape)} of {entry.dtype}")
    return entry
