"""Shards: safetensors files with the arrays of several cases."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llm4seg.data.tiles import PAGE

SHARD_BYTES = 256 * 2**20
VOLUME_BYTES = 32 * 2**20  # of volumes of their own shapes: beyond, a shard is written at once


@dataclass(frozen=True)
class Part:
    """The file of one case's arrays, of `size` bytes, until a ShardWriter takes it in; `names` are in its order."""

    path: Path
    names: tuple[str, ...]
    size: int


def write_part(path: Path, case_id: str, pages: bool = False, **arrays: np.ndarray) -> Part:
    """Write a case's arrays, in any process. Raises OSError naming the file when the disk is full."""
    named = {f"{case_id}/{name}": array for name, array in arrays.items()}
    _save(named, path, pages)
    return Part(path, tuple(named), sum(array.nbytes for array in arrays.values()))


class ShardWriter:
    """Collects the arrays of one kind ("grid", "native") and writes them in shards of at most `limit` bytes.

    No more than one shard is in memory. A case larger than the limit gets a shard of its own. With `pages`, arrays that
    are whole pages of the disk begin at one, see `save_pages`.
    """

    def __init__(self, folder: Path, kind: str, limit: int = SHARD_BYTES, pages: bool = False) -> None:
        self.names: list[str] = []
        self._folder, self._kind, self._limit, self._pages = folder, kind, limit, pages
        self._arrays: dict[str, np.ndarray] = {}
        self._bytes = 0

    def add(self, case_id: str, **arrays: np.ndarray) -> str:
        """Add a case's arrays; returns the name of the shard that will hold them."""
        size = sum(array.nbytes for array in arrays.values())
        if self._arrays and self._bytes + size > self._limit:
            self.flush()
        for name, array in arrays.items():
            self._arrays[f"{case_id}/{name}"] = array
        self._bytes += size
        return self._name()

    def take(self, part: Part) -> str:
        """Add a volume's arrays out of its file, which becomes a shard where they are much; returns the shard's name.

        What was collected is written if it is much: a volume need not wait in memory for the next one.
        """
        from safetensors.numpy import load_file

        if self._arrays and self._bytes + part.size > self._limit:
            self.flush()
        name = self._name()
        if not self._arrays and part.size > VOLUME_BYTES:
            part.path.rename(self._folder / name)
            self.names.append(name)
            return name
        arrays = load_file(part.path)
        self._arrays |= {array: arrays[array] for array in part.names}
        self._bytes += part.size
        part.path.unlink()
        if self._bytes > VOLUME_BYTES:
            self.flush()
        return name

    def flush(self) -> None:
        """Write the collected arrays, if any, as a shard. Raises OSError naming the shard when the disk is full."""
        if not self._arrays:
            return
        _save(self._arrays, self._folder / self._name(), self._pages)
        self.names.append(self._name())
        self._arrays, self._bytes = {}, 0

    def _name(self) -> str:
        return f"{self._kind}-{len(self.names):03d}.safetensors"


def _save(arrays: dict[str, np.ndarray], path: Path, pages: bool) -> None:
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    try:
        (save_pages if pages else save_file)(contiguous, path)
    except (SafetensorError, OSError) as error:  # safetensors' wraps the operating system's
        raise OSError(f"{path.name}: {error}") from None


def save_pages(arrays: dict[str, np.ndarray], path: Path) -> None:
    """Write a safetensors file in which each array of whole pages begins at a page: they come first, and the header is
    filled up with spaces. https://huggingface.co/docs/safetensors has the format.
    """
    ordered = sorted(arrays, key=lambda name: (arrays[name].nbytes % PAGE > 0, name))
    header, end = {}, 0
    for name in ordered:
        array = arrays[name]
        begin, end = end, end + array.nbytes
        kind = f"{array.dtype.kind.upper()}{8 * array.itemsize}"
        header[name] = {"dtype": kind, "shape": array.shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % PAGE)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in ordered:
            file.write(arrays[name].data)
