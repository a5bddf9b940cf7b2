"""An LLM's source, opened: a checkpoint of which layers can be read, verified by `llm.sha256`."""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from llm4seg.config.schema import LLM
from llm4seg.llm.architecture import text_config
from llm4seg.llm_sources.gguf_llama import GGUFLlama
from llm4seg.llm_sources.license import LicenceFile, find_license_file
from llm4seg.llm_sources.location import Location, locate
from llm4seg.llm_sources.safetensors_folder import SafetensorsFolder
from llm4seg.llm_sources.storage import Storage
from llm4seg.llm_sources.storage.local import LocalFolder
from llm4seg.utils.errors import InputError


class Checkpoint(Protocol):
    """An LLM in its files, of which single layers can be read."""

    config: dict[str, Any]  # transformers' config, with its model_type
    license: str | None
    license_file: LicenceFile | None
    files: list[str]  # all that it consists of, sorted

    def nbytes(self, path: str, keys: Collection[str]) -> int:
        """How many bytes `tensors` reads."""

    def tensors(self, path: str, keys: Collection[str]) -> dict[str, Tensor]:
        """The tensors of one module of transformers' base model, such as `layers.3` or `norm`, named as in it.

        `keys`, those that it must have, tell it from a module of that path elsewhere (in a vision tower, say). Empty
        when the checkpoint has no such module.
        """


@dataclass(frozen=True)
class Source:
    """An opened checkpoint and what identifies it, wherever it lies: its name, revision and content."""

    name: str
    revision: str | None  # what its place says: a version, a commit, a digest that changes when a file does
    sha256: str | None  # of all of it, if llm.sha256 asks for that check
    checkpoint: Checkpoint
    storage: Storage


@contextmanager
def open_source(section: LLM, cache: Path) -> Iterator[Source]:
    """Lend what `llm.source` names, opened; what was transferred for it is kept until the block ends well.

    Raises InputError naming the parameter or the file: unknown source, wrong sha256, unreadable or unsupported file.
    """
    location = locate(section, cache)
    with location.storage as storage:
        checkpoint = _open_checkpoint(location)
        revision = location.revision or _revision(storage, checkpoint.files)
        sha256 = _verified_sha256(section, storage, checkpoint.files)
        yield Source(location.name, revision, sha256, checkpoint, storage)


def _open_checkpoint(location: Location) -> Checkpoint:
    if location.file is None:
        return SafetensorsFolder(location.storage)
    checkpoint = GGUFLlama(location.storage, location.file)
    if not isinstance(location.storage, LocalFolder):  # beside a file here may lie the license of anything
        checkpoint.license_file = find_license_file(location.storage)
    return checkpoint


def _revision(storage: Storage, files: Sequence[str]) -> str | None:
    """The file's version as its place has it; of several files a digest of them all. None if one has none."""
    versions = [storage.version(file) for file in files]
    if None in versions:
        return None
    return versions[0] if len(files) == 1 else _digest(versions, files)


def _verified_sha256(section: LLM, storage: Storage, files: Sequence[str]) -> str | None:
    """What `llm.sha256` asks for: the file's sha256; for a folder, that of a list of its files' sha256.

    The list is what `sha256sum` prints, sorted by name, of config.json, the index if any, and all safetensors files:
    `cd FOLDER && LC_ALL=C sha256sum config.json model*.safetensors* | sha256sum`.
    """
    if section.sha256 is None:
        return None
    known = [storage.sha256(file) for file in files]
    if None in known:
        raise InputError(
            f"llm.sha256: found {section.sha256}, but of {storage.place()} it cannot be known without transferring all "
            "of it; allowed: null (llm.layer_sha256 checks what is transferred)"
        )
    found = known[0] if len(files) == 1 else _digest(known, files)
    if found != section.sha256:
        where = storage.place(files[0] if len(files) == 1 else "")
        raise InputError(f"llm.sha256: found {section.sha256}, but {where} has {found} (null: not checked)")
    return found


def _digest(values: Sequence[str | None], files: Sequence[str]) -> str:
    lines = "".join(f"{value}  {file}\n" for value, file in zip(values, files, strict=True))
    return hashlib.sha256(lines.encode()).hexdigest()


def check_layers(layers: Sequence[int], source: Source) -> None:
    """Raise InputError for a layer that the LLM does not have."""
    count = text_config(source.checkpoint.config).num_hidden_layers
    beyond = [layer for layer in layers if layer >= count]
    if beyond:
        where = "model.llm.layer, llm.layers or search.space"
        raise InputError(f"{where}: found layer {beyond[0]}, allowed: 0 to {count - 1} ({source.name})")
