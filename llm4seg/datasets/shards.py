"""Shards: safetensors files with the arrays of several cases."""

from pathlib import Path

import numpy as np

SHARD_BYTES = 256 * 2**20
VOLUME_BYTES = 32 * 2**20  # of volumes of their own shapes: beyond, a shard is written at once


class ShardWriter:
    """Collects the arrays of one kind ("grid", "native") and writes them in shards of at most `limit` bytes.

    No more than one shard is in memory. A case larger than the limit gets a shard of its own.
    """

    def __init__(self, folder: Path, kind: str, limit: int = SHARD_BYTES) -> None:
        self.names: list[str] = []
        self._folder, self._kind, self._limit = folder, kind, limit
        self._arrays: dict[str, np.ndarray] = {}
        self._bytes = 0

    def add(self, case_id: str, image: np.ndarray, labels: np.ndarray, **more: np.ndarray) -> str:
        """Add a case's arrays; returns the name of the shard that will hold them."""
        arrays = {"image": image, "labels": labels, **more}
        size = sum(array.nbytes for array in arrays.values())
        if self._arrays and self._bytes + size > self._limit:
            self.flush()
        for name, array in arrays.items():
            self._arrays[f"{case_id}/{name}"] = np.ascontiguousarray(array)
        self._bytes += size
        return self._name()

    def flush_large(self) -> None:
        """Write what was collected if it is much: a volume need not wait in memory for the next one."""
        if self._bytes > VOLUME_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write the collected arrays, if any, as a shard. Raises OSError naming the shard when the disk is full."""
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        if not self._arrays:
            return
        try:
            save_file(self._arrays, self._folder / self._name())
        except SafetensorError as error:  # it wraps the operating system's
            raise OSError(f"{self._name()}: {error}") from None
        self.names.append(self._name())
        self._arrays, self._bytes = {}, 0

    def _name(self) -> str:
        return f"{self._kind}-{len(self.names):03d}.safetensors"
