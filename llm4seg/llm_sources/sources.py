"""An LLM's source: from `llm.source` to a checkpoint whose layers can be read, verified by `llm.sha256`."""

import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from llm4seg.config.schema import LLM
from llm4seg.llm.architecture import layer_count
from llm4seg.llm_sources.gguf_llama import GGUFLlama
from llm4seg.llm_sources.license import LicenseFile, find_license_file
from llm4seg.llm_sources.safetensors_folder import SafetensorsFolder
from llm4seg.llm_sources.storage import LocalFolder, Storage
from llm4seg.utils.errors import InputError, without_secrets
from llm4seg.utils.pypi import package_file

GGUF = ".gguf"
REMOTE = ("s3", "http", "https", "gs", "az")
ALLOWED = (
    "package://NAME==VERSION/FILE.gguf, hf://ORG/NAME@REVISION, s3://BUCKET/PREFIX, https://HOST/FOLDER, a path here "
    "(gs://BUCKET/PREFIX with gcsfs installed, az://CONTAINER/PREFIX with adlfs); "
    "what is named is a .gguf file, or a folder with config.json and safetensors"
)


class Checkpoint(Protocol):
    """A checkpoint of an LLM, from which single layers can be read."""

    config: dict[str, Any]  # transformers' config, with its model_type
    license: str | None
    license_file: LicenseFile | None
    files: list[str]  # of all of it, sorted

    @property
    def names(self) -> Collection[str]:
        """The names of all tensors, as they are in the files."""

    def nbytes(self, path: str, keys: Collection[str]) -> int:
        """The number of bytes that `tensors` reads."""

    def tensors(self, path: str, keys: Collection[str]) -> dict[str, Tensor]:
        """The tensors of one module, such as `layers.3` or `norm` of transformers' base model, named as in it.

        `keys`, the names that it must have, distinguish it from a module of that path elsewhere (in a vision tower,
        say). Empty when the checkpoint has no such module.
        """


@dataclass(frozen=True)
class Location:
    """The location of a source: a storage and a file in it; None for a folder."""

    name: str
    revision: str | None
    storage: Storage
    file: str | None


@dataclass(frozen=True)
class Source:
    """An opened checkpoint and its identity wherever it lies: its name, revision and content."""

    name: str
    revision: str | None  # from its place: a version, a commit, a digest that changes when a file does
    sha256: str | None  # of all of it, if llm.sha256 is set
    checkpoint: Checkpoint
    storage: Storage


def open_source(section: LLM, cache: Path) -> Source:
    """Open the checkpoint that `llm.source` names.

    Raises InputError naming the parameter or the file: unknown source, wrong sha256, unreadable or unsupported file.
    """
    location = locate(section, cache)
    checkpoint = _open_checkpoint(location)
    revision = location.revision or _revision(location.storage, checkpoint.files)
    sha256 = _verified_sha256(section, location.storage, checkpoint.files)
    return Source(location.name, revision, sha256, checkpoint, location.storage)


def locate(section: LLM, cache: Path) -> Location:
    """The location that `llm.source` names, not opened yet. Raises InputError naming the parameter."""
    source = section.source
    if re.match(r"\w+://[^/]*@|https?://.*[?#]", source):
        raise InputError(
            f"llm.source: found {without_secrets(source)} with a password or query, which params.yaml would pass on; "
            "allowed: neither (~/.netrc is read)"
        )
    scheme, _, rest = source.rpartition("://")
    match scheme:
        case "":
            return _locate_local(Path(source))
        case "package":
            requirement, _, member = rest.partition("/")
            path = package_file(requirement, member, cache)
            return Location(source, requirement.partition("==")[2] or None, LocalFolder(path.parent), path.name)
        case "hf":
            from llm4seg.llm_sources.hub import resolve  # here, as below: the imports take a while

            name, commit, path_in_repo = resolve(source)
            folder, file = _split_file(path_in_repo)
            storage = _remote(f"{name}@{commit}/{folder}", section, cache)
            return Location(f"{name}/{path_in_repo}".rstrip("/"), commit, storage, file)
        case _ if scheme in REMOTE:
            folder, file = _split_file(source.rstrip("/"))
            return Location(source, None, _remote(folder, section, cache), file)
    raise InputError(f"llm.source: found {source!r}, allowed: {ALLOWED}")


def _locate_local(path: Path) -> Location:
    """A source on this machine, named by the last part of its path: no result may depend on its folder."""
    if not path.exists():
        raise InputError(f"llm.source: {path}: no such file or folder")
    if path.is_file() and path.suffix != GGUF:
        raise InputError(f"llm.source: found {str(path)!r}, allowed: {ALLOWED}")
    folder, file = (path, None) if path.is_dir() else (path.parent, path.name)
    return Location(path.name, None, LocalFolder(folder), file)


def _remote(folder: str, section: LLM, cache: Path) -> Storage:
    from llm4seg.llm_sources.remote import RemoteFolder

    return RemoteFolder(folder, cache, section.whole_files)


def _split_file(path: str) -> tuple[str, str | None]:
    """A folder, and the GGUF file in it if the path names one."""
    folder, _, file = path.rpartition("/")
    return (folder, file) if path.endswith(GGUF) else (path, None)


def _open_checkpoint(location: Location) -> Checkpoint:
    if location.file is None:
        return SafetensorsFolder(location.storage)
    checkpoint = GGUFLlama(location.storage, location.file)
    if not isinstance(location.storage, LocalFolder):  # a license beside a file on this machine may be of anything
        checkpoint.license_file = find_license_file(location.storage)
    return checkpoint


def _revision(storage: Storage, files: Sequence[str]) -> str | None:
    """The file's version; of several files a digest of all versions. None if a file has none."""
    versions = [storage.version(file) for file in files]
    if None in versions:
        return None
    return versions[0] if len(files) == 1 else _digest(versions, files)


def _verified_sha256(section: LLM, storage: Storage, files: Sequence[str]) -> str | None:
    """The sha256 that `llm.sha256` must equal: the file's; for a folder, that of a list of its files' sha256.

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
    count = layer_count(source.checkpoint.config)
    beyond = [layer for layer in layers if layer >= count]
    if beyond:
        where = "model.llm.layer, llm.layers or search.space"
        raise InputError(f"{where}: found layer {beyond[0]}, allowed: 0 to {count - 1} ({source.name})")
