"""An LLM in transformers' folder layout: config.json with model.safetensors, or an index and its shards."""

import json
import re
from collections.abc import Collection
from pathlib import PurePosixPath
from typing import Any

from torch import Tensor

from llm4seg.llm_sources.license import find_license
from llm4seg.llm_sources.safetensors_file import SafetensorsFile
from llm4seg.llm_sources.storage import Storage, check_no_lfs_pointer
from llm4seg.utils.errors import InputError

CONFIG, SINGLE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"


class SafetensorsFolder:
    """A checkpoint (see `sources.Checkpoint`) in a folder. Only the shards with a requested layer are opened.

    Raises InputError naming the first file that is missing or is not what it should be.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.config = self._read_config()
        self._shards = self._weight_map()
        self.files = self._check_files()
        self._opened: dict[str, SafetensorsFile] = {}
        self._file_of = self._shards or dict.fromkeys(self._open(SINGLE).tensors, SINGLE)
        self.license, self.license_file = find_license(storage)

    @property
    def names(self) -> Collection[str]:
        """The names of all tensors, as they are in the files."""
        return self._file_of.keys()

    def nbytes(self, path: str, keys: Collection[str]) -> int:
        """The number of bytes that `tensors` reads."""
        _, names = self._module(path, keys)
        return sum(self._open(file).nbytes(inside) for file, inside in names.items())

    def tensors(self, path: str, keys: Collection[str]) -> dict[str, Tensor]:
        """The tensors of one module in the checkpoint's own dtype, under transformers' names."""
        prefix, names = self._module(path, keys)
        read = [self._open(file).read(inside) for file, inside in names.items()]
        return {name.removeprefix(prefix): tensor for tensors in read for name, tensor in tensors.items()}

    def _module(self, path: str, keys: Collection[str]) -> tuple[str, dict[str, list[str]]]:
        """The prefix of a module's tensor names, and these names by file."""
        prefix = find_prefix(self._file_of, path, keys)
        names = [] if prefix is None else [name for name in self._file_of if name.startswith(prefix)]
        files = sorted({self._file_of[name] for name in names})
        return prefix or "", {file: [name for name in names if self._file_of[name] == file] for file in files}

    def _open(self, name: str) -> SafetensorsFile:
        if name not in self._opened:
            file = SafetensorsFile(self._storage, name)
            missing = sorted({tensor for tensor, shard in self._shards.items() if shard == name} - file.tensors.keys())
            if missing:
                raise InputError(f"{file.place}: has no tensor {missing[0]}, which {INDEX} promises")
            self._opened[name] = file
        return self._opened[name]

    def _weight_map(self) -> dict[str, str]:
        """The file of each tensor; empty when there is a single file and no index."""
        if (text := self._storage.text(INDEX, optional=True)) is None:
            return {}
        shards = self._parsed(INDEX, text, "weight_map")["weight_map"]
        if not isinstance(shards, dict):
            raise InputError(f"{self._storage.place(INDEX)}: has no weight_map from tensors to files")
        for shard in shards.values():
            if not isinstance(shard, str):
                raise InputError(f"{self._storage.place(INDEX)}: weight_map: found {shard!r}, allowed: names of files")
            if PurePosixPath(shard).is_absolute() or ".." in PurePosixPath(shard).parts:
                raise InputError(f"{self._storage.place(INDEX)}: names {shard}, which is outside the folder")
        return shards

    def _check_files(self) -> list[str]:
        """The names of all files that the checkpoint consists of, sorted."""
        names = sorted({CONFIG, INDEX, *self._shards.values()} if self._shards else {CONFIG, SINGLE})
        for name in names:
            if self._storage.size(name) is None:
                raise InputError(self._lacks(name))
        return names

    def _read_config(self) -> dict[str, Any]:
        if (text := self._storage.text(CONFIG)) is None:
            raise InputError(self._lacks(CONFIG))
        return self._parsed(CONFIG, text, "model_type")

    def _parsed(self, name: str, text: str, needed: str) -> dict[str, Any]:
        """A file's JSON object, which must have the entry `needed`."""
        check_no_lfs_pointer(self._storage, name, text.encode())
        try:
            value = json.loads(text)
        except ValueError as error:
            raise InputError(f"{self._storage.place(name)}: not valid JSON: {error}") from None
        if not isinstance(value, dict) or needed not in value:
            raise InputError(f"{self._storage.place(name)}: has no {needed}")
        return value

    def _lacks(self, name: str) -> str:
        return f"{self._storage.place()}: has no {name}; needed: {CONFIG} and {SINGLE}, or {INDEX} with all its shards"


def find_prefix(names: Collection[str], path: str, keys: Collection[str]) -> str | None:
    """The prefix of a module's tensor names; of several candidates the one with most of `keys`.

    A base model's `layers.3` is `model.layers.3` under a head, `language_model.model.layers.3` beside a vision tower.
    Of several norms it is the one beside layers. Raises InputError when two candidates are equally good.
    """
    candidates = {match[0] for name in names if (match := re.match(rf"(?:.*\.)?{re.escape(path)}\.", name))}
    present = set(names)

    def score(prefix: str) -> tuple[int, bool, bool]:
        beside = prefix.removesuffix(f"{path}.")
        has_layers = any(name.startswith(beside + "layers.") for name in names)
        has_encoder = any(name.startswith((beside + "encoder.layer.", beside + "encoder.layers.")) for name in names)
        return sum(prefix + key in present for key in keys), has_layers, has_encoder

    best = sorted(prefix for prefix in candidates if score(prefix) == max(map(score, candidates)))
    if len(best) > 1:
        places = ", ".join(prefix.removesuffix(".") for prefix in best)
        raise InputError(f"the LLM's tensors: {path} is there more than once: {places}")
    return best[0] if best else None
