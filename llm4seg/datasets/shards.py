"""Shards: safetensors files with the arrays of several cases."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

SHARD_BYTES = 256 * 2**20
VOLUME_BYTES = 32 * 2**20  # of volumes of their own shapes: beyond, a shard is written at once


@dataclass(frozen=True)
class Part:
    """The file of one case's arrays, of `size` bytes, until a ShardWriter takes it in."""

    path: Path
    size: int


def write_part(path: Path, case_id: str, **arrays: np.ndarray) -> Part:
    """Write a case's arrays, in any process. Raises OSError naming the file when the disk is full."""
    _save({f"{case_id}/{name}": array for name, array in arrays.items()}, path)
    return Part(path, sum(array.nbytes for array in arrays.values()))


def _save(arrays: dict[str, np.ndarray], path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    except SafetensorError as error:  # it wraps the operating system's
        raise OSError(f"{path.name}: {error}") from None


class ShardWriter:
    """Collects the arrays of one kind ("grid", "native") and writes them in shards of at most `limit` bytes.

    No more than one shard is in memory. A case larger than the limit gets a shard of its own.
    """

    def __init__(self, folder: Path, kind: str, limit: int = SHARD_BYTES) -> None:
        self.names: list[str] = []
        self._folder, self._kind, self._limit = folder, kind, limit
        self._arrays: dict[str, np.ndarray] = {}
        self._bytes = 0

    def add(self, case_id: str, image: np.ndarray, labels: np.ndarray) -> str:
        """Add a case's arrays; returns the name of the shard that will hold them."""
        arrays, size = {"image": image, "labels": labels}, image.nbytes + labels.nbytes
        if self._arrays and self._bytes + size > self._limit:
            self.flush()
        for name, array in arrays.items():
            self._arrays[f"{case_id}/{name}"] = np.ascontiguousarray(array)
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
        self._arrays |= load_file(part.path)
        self._bytes += part.size
        part.path.unlink()
        if self._bytes > VOLUME_BYTES:
            self.flush()
        return name

    def flush(self) -> None:
        """Write the collected arrays, if any, as a shard. Raises OSError naming the shard when the disk is full."""
        if not self._arrays:
            return
        _save(self._arrays, self._folder / self._name())
        self.names.append(self._name())
        self._arrays, self._bytes = {}, 0

    def _name(self) -> str:
        return f"{self._kind}-{len(self.names):03d}.safetensors"
