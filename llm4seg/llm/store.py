"""The layer store: a folder with a safetensors file per layer, and config.json that describes them.

A layer's file describes itself and does not depend on which others are present, so a result can be bound to it alone.
`llm_sources.build_store` writes the store. Several LLMs are stores in one folder: that of `default` is the folder
itself, as when there was one LLM, and each other LLM's a folder in it, by its name.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from llm4seg.config.schema import DEFAULT_LLM
from llm4seg.llm.layer_inputs import LayerSpec
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import read_json

CONFIG, NORM_FILE = "config.json", "norm.safetensors"
REMEDY = "run `dvc repro fetch_llm`"


def layer_file(layer: int) -> str:
    """The name of a layer's file in the store."""
    return f"layer_{layer}.safetensors"


def tensors_sha256(tensors: dict[str, Tensor]) -> str:
    """Hex sha256 over name, dtype, shape and bytes of every tensor, in order of name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class LayerStore:
    """A filled layer store. Raises InputError when the folder is none, or a layer in it is absent or was changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        described = read_json(folder / CONFIG)
        try:
            self._describe(described)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{folder / CONFIG}: not a layer store's ({error!r}); {REMEDY}") from None

    def _describe(self, described: Any) -> None:
        self.config: dict[str, Any] = described["architecture"]
        self.source: str = described["source"]
        self.revision: str | None = described["revision"]
        self.license: str | None = described["licence"]
        self.source_sha256: str | None = described["sha256"]
        self._sha256 = {int(layer): sha256 for layer, sha256 in described["layers"].items()}
        self.norm_sha256: str | None = described["norm"]
        self.layers: tuple[int, ...] = tuple(sorted(self._sha256))
        specs = described.get("layer_specs", {})  # none: a store of an earlier version
        self._specs = {int(n): one if isinstance(one, str) else LayerSpec.parse(one) for n, one in specs.items()}

    def sha256(self, layer: int) -> str:
        """Hex sha256 of a layer's tensors (see `tensors_sha256`)."""
        if layer not in self._sha256:
            available = ", ".join(map(str, self.layers))
            raise InputError(f"model.llm.layer: found {layer}, allowed: {available} (in {self.folder}); {REMEDY}")
        return self._sha256[layer]

    def spec(self, layer: int) -> LayerSpec:
        """The spec of any layer of the LLM, whether it is in the store or not.

        Raises InputError where the LLM has no such layer, or the layer cannot run alone.
        """
        if not self._specs:
            raise InputError(f"{self.folder / CONFIG}: has no layer_specs, an earlier version wrote it; {REMEDY}")
        if layer not in self._specs:
            raise InputError(f"model.llm.layer: found {layer}, allowed: 0 to {max(self._specs)} ({self.source})")
        if isinstance(found := self._specs[layer], str):
            raise InputError(found)
        return found

    def lists(self, layers: Mapping[int, str], norm: str | None) -> bool:
        """Whether the store has layers of these sha256, and if `norm` is given, a final norm of that one."""
        listed = all(self._sha256.get(layer) == sha256 for layer, sha256 in layers.items())
        return listed and norm in (None, self.norm_sha256)

    def path(self, layer: int) -> Path:
        """The file of a layer."""
        return self.folder / layer_file(layer)

    @property
    def norm_path(self) -> Path:
        """The file of the LLM's final norm."""
        return self.folder / NORM_FILE

    def parameters(self, layer: int) -> int:
        """The number of parameters of a layer."""
        with safe_open(self.path(layer), "pt") as file:
            return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118, no dict

    def load(self, layer: int) -> dict[str, Tensor]:
        """A layer's tensors in the checkpoint's dtype, under the names of transformers' decoder layer; verified."""
        return read_verified(self.path(layer), self.sha256(layer))

    def load_norm(self) -> dict[str, Tensor]:
        """The tensors of the LLM's final norm, in the checkpoint's dtype; verified."""
        if self.norm_sha256 is None:
            raise InputError(f"model.llm.norm: found true, but {self.source} has no final norm that could be read")
        return read_verified(self.norm_path, self.norm_sha256)


def store_folder(folder: Path, name: str) -> Path:
    """The folder of an LLM's store among those in `folder`."""
    return folder if name == DEFAULT_LLM else folder / name


def named_store(folder: Path, name: str) -> LayerStore:
    """The store of an LLM, by its name, among those in `folder`. Raises InputError where it is missing."""
    found = store_folder(folder, name)
    if name != DEFAULT_LLM and not (found / CONFIG).is_file():
        raise InputError(f"model.llm.source: found {name}, but there is no layer store {found}; {REMEDY}")
    return LayerStore(found)


def stores_in(folder: Path) -> Iterator[LayerStore]:
    """The store that a folder is, if it is one, and those in it. Raises InputError at the first that is damaged."""
    for path in [folder, *sorted(folder.glob("[!.]*"))]:
        if (path / CONFIG).is_file():
            yield LayerStore(path)


def find_store(folder: Path, layers: Mapping[int, str], norm: str | None, name: str) -> LayerStore:
    """The store in `folder` that holds layers (with their sha256) and norm, whatever its name; else that of `name`."""
    return next((one for one in stores_in(folder) if one.lists(layers, norm)), None) or named_store(folder, name)


def read_verified(path: Path, sha256: str) -> dict[str, Tensor]:
    """Read a file of the store. Raises InputError when it cannot be read or its tensors have another sha256."""
    try:
        tensors = load_file(path)
    except (SafetensorError, FileNotFoundError) as error:
        raise InputError(f"{path}: cannot be read: {error}; {REMEDY}") from None
    if (found := tensors_sha256(tensors)) != sha256:
        raise InputError(f"{path}: found sha256 {found} of its tensors, {CONFIG} says {sha256}; {REMEDY}")
    return tensors
