"""Trained models at addresses: on the Hugging Face hub, in buckets, on web servers; fetched once into the cache."""

import hashlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from llm4seg.models.saved import DESCRIPTION, WEIGHTS
from llm4seg.predict.llm_layers import cache_folder
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import replacing

if TYPE_CHECKING:
    from llm4seg.llm_sources.remote import RemoteFolder

log = logging.getLogger(__name__)

SCHEMES = ("hf", "s3", "https", "http", "gs", "az")
ALLOWED = "a folder, hf://ORG/NAME[@REVISION][/FOLDER], s3://BUCKET/FOLDER, https://HOST/FOLDER, gs:// or az://"


def model_folder(model: str | Path) -> Path:
    """The folder of a trained model: itself, or of an address its copy in `cache_folder()`, which is fetched if absent.

    A copy is named by the versions of its files, or the commit, so that a model that has changed is fetched again.
    Raises InputError, with one line, where there is no model or it cannot be read.
    """
    address = str(model)
    scheme, separator, _ = address.partition("://")
    if not separator:
        return Path(model)
    if scheme not in SCHEMES:
        raise InputError(f"model: found {address}, allowed: {ALLOWED}")
    try:
        return _fetched(address.rstrip("/"), scheme)
    except InputError as error:  # whatever reads addresses was written for those of LLMs
        raise InputError(str(error).replace("llm.source", "model")) from None


def _fetched(address: str, scheme: str) -> Path:
    from llm4seg.llm_sources.remote import RemoteFolder  # here: the imports take a while

    if scheme == "hf":
        from llm4seg.llm_sources.hub import resolve

        name, commit, inner = resolve(address)
        address = f"{name}@{commit}/{inner}".rstrip("/")
    remote = RemoteFolder(address, cache_folder(), whole_files=True)
    if remote.size(DESCRIPTION) is None:
        raise InputError(f"{remote.place()}: found no {DESCRIPTION}, allowed: the folder of a trained model")
    versions = [remote.version(name) for name in (DESCRIPTION, WEIGHTS)]
    name = hashlib.sha256(f"{remote.place()}\n{versions}".encode()).hexdigest()[:16]
    folder = cache_folder() / "models" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):  # of several processes the first one fetches
        if None in versions or not folder.is_dir():
            _fetch(remote, folder)
        else:
            log.debug("%s: fetched before, in %s", remote.place(), folder)
    return folder


def _fetch(remote: "RemoteFolder", folder: Path) -> None:
    size = remote.size(WEIGHTS) or 0
    with replacing(folder) as partial, remote.progress(size):
        partial.mkdir()
        (partial / DESCRIPTION).write_text(remote.text(DESCRIPTION) or "", encoding="utf-8")
        (partial / WEIGHTS).write_bytes(remote.read(WEIGHTS, 0, size))
