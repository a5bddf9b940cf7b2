"""The layer stores of all LLMs of a config: what was ever fetched, and what is used of it."""

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from llm4seg.config.schema import DEFAULT_LLM, LLM, LLMSource
from llm4seg.llm.store import CONFIG, LayerStore, store_folder
from llm4seg.llm_sources.build_store import fill_from, link_or_copy, select_layers
from llm4seg.llm_sources.sources import layer_count, open_source
from llm4seg.utils.errors import InputError, UserError
from llm4seg.utils.files import remove, replacing

log = logging.getLogger(__name__)

Layers = Mapping[str, Sequence[int]]  # by the name of an LLM
PARAMETER = re.compile(r"(?<![\w.])llm\.(?=(?:source|sha256|layer_sha256|layers|whole_files)\b)")


def fetch_layers(
    section: LLM, needed: Layers, used: Layers, folder: Path, used_folder: Path, cache: Path
) -> dict[str, LayerStore]:
    """Fetch the `needed` layers into the stores in `folder`, one for each source, and write stores of the `used` ones
    to `used_folder`, one for each name, atomically. Returns the former by name.

    Raises InputError as `fill_from` does, naming the parameter of the LLM that it is about.
    """
    _adopt(folder)
    filled = {}
    with replacing(used_folder) as partial:
        partial.mkdir()
        for name in sorted(needed, key=[*section.named].index):
            with _parameters_of(name):
                filled[name] = _filled(folder, section.named[name], needed[name], cache)
            if name in used:  # at once: another LLM may have the same source, and fill the same store
                own = store_folder(partial, name)
                own.mkdir(exist_ok=True)
                select_layers(filled[name], used[name], own)
    return filled


def fetch_store(section: LLM, name: str, layers: Sequence[int] | None, folder: Path, cache: Path) -> LayerStore:
    """The store of one LLM among those in `folder`, with `layers` fetched; None: with all that can run alone.

    Raises InputError as `fetch_layers` does.
    """
    with _parameters_of(name):
        source = section.named[name]
        if layers is None:
            layers = _run_alone(_filled(folder, source, (), cache))
        return _filled(folder, source, layers, cache)


def _run_alone(store: LayerStore) -> list[int]:
    """The layers of an LLM that can run without the others, whether they are in its store or not."""
    found = []
    for layer in range(layer_count(store.config)):
        with suppress(InputError):
            store.spec(layer)
            found.append(layer)
    return found


def _filled(folder: Path, section: LLMSource, layers: Sequence[int], cache: Path) -> LayerStore:
    source = open_source(section, cache)
    commit = source.revision if source.name.startswith("hf://") else None  # of others, the name has it or nothing has
    return fill_from(folder / _folder_name(source.name, commit, source.sha256), source, section, layers)


def _folder_name(source: str, commit: str | None, sha256: str | None) -> str:
    """The name of a source's store: the end of its address, and a digest of what tells it from others."""
    digest = hashlib.sha256(json.dumps([source, commit, sha256]).encode()).hexdigest()[:8]
    end = re.sub(r"[^\w.-]+", "-", source.rstrip("/").rpartition("/")[2])
    return f"{end.lstrip('.')}-{digest}"


@contextmanager
def _parameters_of(name: str) -> Iterator[None]:
    """Context manager that names parameters of another LLM than `default` where they are, in `llm.sources`."""
    try:
        yield
    except InputError as error:
        if name == DEFAULT_LLM:
            raise
        where = f"llm.sources.{name}"
        message = PARAMETER.sub(f"{where}.", str(error))
        raise InputError(message if where in message else f"{where}: {message}") from None


def _adopt(folder: Path) -> None:
    """Put the layers of an earlier version, which had one store in `folder`, into the folder of their source."""
    for left in folder.glob(".*"):
        remove(left)  # what an interrupted stage left
    if not (folder / CONFIG).is_file():
        return
    with replacing(folder) as partial:
        partial.mkdir()
        try:
            store = LayerStore(folder)
        except UserError:
            return  # damaged: its layers are fetched again
        commit = store.revision if store.source.startswith("hf://") else None
        own = partial / _folder_name(store.source, commit, store.source_sha256)
        own.mkdir()
        for path in filter(Path.is_file, folder.iterdir()):
            link_or_copy(path, own / path.name)
    log.info(f"{folder}: the layers of {store.source} are now in {own.name}, in it: each LLM has a folder of its own")
