"""An LLM in transformers' folder layout: config.json with model.safetensors, or an index and its shards."""

import re
from collections.abc import Collection
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from llm4seg.errors import InputError
from llm4seg.files import read_json

CONFIG, SINGLE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"


def checkpoint_files(folder: Path) -> list[Path]:
    """All files that the checkpoint consists of, by name. Raises InputError naming the first one that is missing."""
    sharded = (folder / INDEX).exists()
    names = sorted({CONFIG, INDEX, *_weight_map(folder).values()} if sharded else {CONFIG, SINGLE})
    for name in names:
        if not (folder / name).is_file():
            raise InputError(f"{folder}: has no {name}; needed: {CONFIG} and {SINGLE}, or {INDEX} with all its shards")
    return [folder / name for name in names]


def _weight_map(folder: Path) -> dict[str, str]:
    index = read_json(folder / INDEX)
    if not isinstance(index, dict) or not isinstance(index.get("weight_map"), dict):
        raise InputError(f"{folder / INDEX}: has no weight_map from tensors to files")
    return dict(index["weight_map"])


class SafetensorsFolder:
    """A checkpoint (see `sources.Checkpoint`) in a folder. Only the shards with the asked layer are opened."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.config = read_json(folder / CONFIG)
        if not isinstance(self.config, dict) or "model_type" not in self.config:
            raise InputError(f"{folder / CONFIG}: has no model_type")
        self.licence = licence(folder)
        sharded = (folder / INDEX).exists()
        self._files = _weight_map(folder) if sharded else dict.fromkeys(_names(folder / SINGLE), SINGLE)

    def tensors(self, path: str, keys: Collection[str]) -> dict[str, Tensor]:
        """The tensors of one module in the checkpoint's own dtype, under transformers' names."""
        prefix = find_prefix(self._files, path, keys)
        return {} if prefix is None else self._read([name for name in self._files if name.startswith(prefix)], prefix)

    def _read(self, names: list[str], prefix: str) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for file in sorted({self._files[name] for name in names}):
            inside = [name for name in names if self._files[name] == file]
            tensors |= {name.removeprefix(prefix): tensor for name, tensor in _tensors(self._folder / file, inside)}
        return tensors


def find_prefix(names: Collection[str], path: str, keys: Collection[str]) -> str | None:
    """What the names of a module's tensors begin with; of several candidates the one that has most of `keys`.

    A base model's `layers.3` is `model.layers.3` under a head, `language_model.model.layers.3` beside a vision tower.
    Of several norms it is the one beside layers. Raises InputError when two places are equally good.
    """
    found = {match[0] for name in names if (match := re.match(rf"(?:.*\.)?{re.escape(path)}\.", name))}
    have = set(names)

    def merit(prefix: str) -> tuple[int, bool]:
        beside = prefix.removesuffix(f"{path}.") + "layers."
        return sum(prefix + key in have for key in keys), any(name.startswith(beside) for name in names)

    best = sorted(prefix for prefix in found if merit(prefix) == max(map(merit, found)))
    if len(best) > 1:
        places = ", ".join(prefix.removesuffix(".") for prefix in best)
        raise InputError(f"the LLM's tensors: {path} is there more than once: {places}")
    return best[0] if best else None


def _names(path: Path) -> list[str]:
    try:
        with safe_open(path, "pt") as file:
            return list(file.keys())
    except SafetensorError as error:
        raise InputError(f"{path}: not a readable safetensors file: {error}") from None


def _tensors(path: Path, names: list[str]) -> list[tuple[str, Tensor]]:
    missing = sorted(set(names) - set(_names(path)))
    if missing:
        raise InputError(f"{path}: has no tensor {missing[0]}, which {INDEX} promises")
    with safe_open(path, "pt") as file:
        return [(name, file.get_tensor(name)) for name in names]


def licence(folder: Path) -> str | None:
    """What the folder says of its licence: the model card's `license:`, or the first line of a LICENSE file."""
    card = folder / "README.md"
    if card.is_file():
        named = re.match(r"---\n(?:(?!---).*\n)*?license: *(.+)\n", card.read_text(encoding="utf-8"))
        if named:
            return named[1].strip()
    for file in sorted(folder.glob("LICEN[CS]E*")):
        lines = (line.strip() for line in file.read_text(encoding="utf-8").splitlines())
        return next((line for line in lines if line), None)
    return None
