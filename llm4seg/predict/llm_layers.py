"""The LLM layers of a trained model: from a store, or fetched from the source that model.json names, once a machine."""

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

from filelock import FileLock

from llm4seg.config.config import HOME
from llm4seg.config.schema import LLMSource
from llm4seg.llm.store import CONFIG, LayerStore, stores_in
from llm4seg.models.saved import DESCRIPTION, needs_layers, read_metadata, source_address
from llm4seg.utils.errors import InputError, UserError

log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """The folder of what is fetched: that of the pipeline's runs where LLM4SEG_HOME is set, else ~/.cache/llm4seg."""
    named = os.environ.get(HOME)
    return Path(named).expanduser().absolute() / ".cache" if named else Path("~/.cache/llm4seg").expanduser()


def layer_store(folder: Path, llm: str | None) -> Path | None:
    """The layer store of a trained model; None where it needs no layers.

    `llm`: a store, or a source as `llm.source` names it, in the place of what model.json names. Layers are fetched into
    `cache_folder()` under their sha256, which are verified. Raises InputError where they cannot be had.
    """
    description, section = read_metadata(folder)
    if not needs_layers(section):
        return None
    if llm is not None and "://" not in llm and _is_store(Path(llm)):
        return Path(llm)
    wanted = description["llm"]
    if wanted is None:
        raise InputError(f"{folder / DESCRIPTION}: does not name its LLM's layers; {_give(folder)}")
    layers = {int(one["layer"]): str(one["sha256"]) for one in wanted["layers"]}
    name = hashlib.sha256(json.dumps([sorted(layers.items()), wanted["norm_sha256"]]).encode()).hexdigest()[:16]
    store = cache_folder() / "layers" / name
    store.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(store.with_suffix(".lock")):  # of several processes the first one fetches
        if not _holds(store, layers, wanted["norm_sha256"]):
            _fetch(store, llm or _address(wanted, folder), layers, folder)
        else:
            log.debug("layers %s: fetched before, in %s", sorted(layers), store)
    return store


def _is_store(folder: Path) -> bool:
    """Whether a folder is a layer store, or holds one."""
    try:
        return next(stores_in(folder), None) is not None
    except UserError:
        return False


def _holds(folder: Path, layers: dict[int, str], norm: str | None) -> bool:
    """Whether a store has all layers with their sha256, also in their files."""
    if not (folder / CONFIG).is_file():
        return False
    try:
        store = LayerStore(folder)
        found = {layer: store.sha256(layer) for layer in layers if store.load(layer)}
        return found == layers and (norm is None or (store.norm_sha256 == norm and bool(store.load_norm())))
    except UserError:  # damaged
        return False


def _fetch(store: Path, source: str, layers: dict[int, str], folder: Path) -> None:
    from llm4seg.llm_sources.build_store import fill_store  # here: the import takes a while

    section = LLMSource(source=source, sha256=None, layer_sha256=layers, layers=(), whole_files=True)
    try:
        fill_store(store, section, sorted(layers), cache_folder())
    except InputError as error:
        raise InputError(
            f"{folder / DESCRIPTION}: the LLM's layers cannot be fetched: {error}; {_give(folder)}"
        ) from None


def _address(wanted: dict[str, Any], folder: Path) -> str:
    """Where the layers were read from. Raises InputError where that is not known, or not on this machine."""
    source, revision = wanted["source"], wanted["revision"]
    address = wanted.get("address") or source_address(source, revision, "")  # none: a model of an earlier version
    if address is None or ("://" not in address and not Path(address).exists()):
        raise InputError(
            f"{folder / DESCRIPTION}: trained with layers of {source}, read from {address or 'a path'}, which is not "
            f"on this machine; {_give(folder)}"
        )
    return str(address)


def _give(folder: Path) -> str:
    return f'name it: llm4seg.load("{folder}", llm="path, address or layer store")'
