"""From an LLM's source to a filled layer store."""

import errno
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from llm4seg.config.schema import LLM
from llm4seg.llm.architecture import check_finite, check_tensors, meta_model
from llm4seg.llm.store import CONFIG, NORM_FILE, LayerStore, layer_file, read_verified, tensors_sha256
from llm4seg.llm_sources.sources import Source, check_layers, open_source
from llm4seg.llm_sources.state_dict_conversion import convert_state_dict
from llm4seg.llm_sources.supported import layer_specs
from llm4seg.utils.errors import InputError, UserError
from llm4seg.utils.files import read_json, replacing, write_json

# what a file system that knows no links says of one; EPERM: exFAT, among others
NO_LINKS = (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK)
IDENTITY = ("source", "revision", "licence", "architecture")  # what a layer's own file says, beside its sha256


@dataclass(frozen=True)
class CachedLayers:
    """What the store has already of the LLM that is wanted now, undamaged."""

    layers: dict[int, str] = field(default_factory=dict)  # layer: sha256 of its tensors
    norm: str | None = None
    certain: bool = False  # the source cannot have changed since
    current: bool = False  # all that config.json says of the source, of the layers and of the files is true still


def fill_store(folder: Path, section: LLM, layers: Sequence[int], cache: Path) -> LayerStore:
    """Make `folder` a layer store that holds `layers` of the LLM that `section` names, whole or not at all.

    Layers already there stay if they are undamaged and of the same source; another source replaces them all. Where it
    is not certain that the source is still the same, because its place says nothing of that, those there are read again
    and compared.
    Raises InputError: see `open_source`; also for a layer out of range or other than `llm.layer_sha256` says, and for
    tensors that the architecture lacks.
    """
    source = open_source(section, cache)
    check_layers(layers, source)
    cached = _cached(folder, source)
    if cached.certain and cached.current and set(layers) <= cached.layers.keys():
        _check_expected(cached.layers, section, source)
    else:
        with replacing(folder) as partial:
            partial.mkdir()
            _fill(partial, folder, {*layers, *cached.layers}, cached, source, section)
    return LayerStore(folder)


def select_layers(store: LayerStore, layers: Sequence[int], folder: Path) -> LayerStore:
    """Make `folder` a layer store of these layers alone, whole or not at all: what a model depends on, and no more."""
    with replacing(folder) as partial:
        partial.mkdir()
        for path in [*(store.path(layer) for layer in layers), *([store.norm_path] if store.norm_sha256 else [])]:
            _link_or_copy(path, partial / path.name)
        described = read_json(store.folder / CONFIG)
        write_json(partial / CONFIG, described | _listed({n: store.sha256(n) for n in layers}, store.norm_sha256))
    return LayerStore(folder)


def _link_or_copy(path: Path, new: Path) -> None:
    """The same file under another name; a copy where the file system has no links, or not from there to here."""
    try:
        os.link(path, new)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        shutil.copyfile(path, new)


def _listed(layers: Mapping[int, str], norm: str | None) -> dict[str, Any]:
    """What the store's config.json says of its files: the sha256 of each layer's tensors, and of the final norm's."""
    return {"layers": {str(layer): layers[layer] for layer in sorted(layers)}, "norm": norm}


def _describe(source: Source) -> dict[str, Any]:
    """What the store's config.json says of the source, and of the code that judged its layers."""
    return {
        "source": source.name,
        "revision": source.revision,
        "sha256": source.sha256,
        "licence": source.checkpoint.license,
        "licence_file": source.checkpoint.license_file,
        "architecture": source.checkpoint.config,
        "transformers": version("transformers"),
    }


def _cached(folder: Path, source: Source) -> CachedLayers:
    """What the store has, if what it says of its source is what is wanted now."""
    present, described = _present(folder), _describe(source)
    if any(name not in present or present[name] != described[name] for name in IDENTITY):
        return CachedLayers()
    listed = {int(layer): sha256 for layer, sha256 in present["layers"].items()}
    layers = {layer: sha256 for layer, sha256 in listed.items() if _is_intact(folder / layer_file(layer), sha256)}
    norm = present["norm"] if present["norm"] and _is_intact(folder / NORM_FILE, present["norm"]) else None
    return CachedLayers(
        layers=layers,
        norm=norm,
        certain=source.revision is not None or (source.sha256 is not None and source.sha256 == present["sha256"]),
        current=(layers, norm) == (listed, present["norm"])
        and "layer_specs" in present
        and all(present.get(name) == value for name, value in described.items()),
    )


def _present(folder: Path) -> dict[str, Any]:
    """A store's config.json; empty where there is none, or what is there cannot be read: all of it is fetched again."""
    try:
        LayerStore(folder)
    except UserError:
        return {}
    present: dict[str, Any] = read_json(folder / CONFIG)
    return present


def _is_intact(path: Path, sha256: str) -> bool:
    try:
        return bool(read_verified(path, sha256))
    except UserError:
        return False


@dataclass(frozen=True)
class Part:
    """A module of the LLM, and its file in the store; the sha256 of its tensors if that is there already."""

    path: str
    module: nn.Module
    layer: int | None  # None: the final norm
    cached: str | None

    @property
    def file(self) -> str:
        return NORM_FILE if self.layer is None else layer_file(self.layer)


def _parts(model: Any, layers: Collection[int], cached: CachedLayers) -> Iterator[Part]:
    """The layers, and the final norm; an LLM without one of the usual kind is fine until `model.llm.norm` wants it."""
    for layer in sorted(layers):
        yield Part(f"layers.{layer}", model.layers[layer], layer, cached.layers.get(layer))
    norms = [(name, module) for name, module in model.named_children() if "norm" in name]
    if len(norms) == 1:
        yield Part(*norms[0], None, cached.norm)


def _fill(new: Path, old: Path, layers: Collection[int], cached: CachedLayers, source: Source, section: LLM) -> None:
    """Write a store: what the old one holds for certain is linked, the rest read from the source."""
    model = meta_model(source.checkpoint.config)
    specs = layer_specs(model, range(len(model.layers)))  # of all layers: random ones need not be fetched
    for layer in sorted(layers):
        if isinstance(refusal := specs.get(layer), str):
            raise InputError(refusal)
    parts = list(_parts(model, layers, cached))
    reading = [part for part in parts if not (cached.certain and part.cached)]
    found: dict[int, str] = {}
    norm = None
    with source.storage.progress(sum(source.checkpoint.nbytes(one.path, one.module.state_dict()) for one in reading)):
        for part in parts:
            sha256 = _refresh(new, old, part, source, model) if part in reading else _link(new, old, part)
            if part.layer is None:
                norm = sha256
            elif sha256 is not None:
                found[part.layer] = sha256
    _check_expected(found, section, source)
    judged = {str(layer): spec if isinstance(spec, str) else spec.plain() for layer, spec in specs.items()}
    write_json(new / CONFIG, _describe(source) | {"layer_specs": judged} | _listed(found, norm))


def _link(new: Path, old: Path, part: Part) -> str | None:
    _link_or_copy(old / part.file, new / part.file)
    return part.cached


def _refresh(new: Path, old: Path, part: Part, source: Source, model: Any) -> str | None:
    """Read a module; returns the sha256 of its tensors, None if there are none. The old file stays if it holds them."""
    tensors = _read(source, model, part)
    if not tensors:
        return None
    sha256 = tensors_sha256(tensors)
    if sha256 == part.cached:
        return _link(new, old, part)
    _write(new / part.file, tensors, source, part.layer, sha256)
    return sha256


def _read(source: Source, model: Any, part: Part) -> dict[str, Tensor]:
    """A module's tensors, checked against the architecture; only a final norm may be absent."""
    found = source.checkpoint.tensors(part.path, part.module.state_dict().keys())
    tensors = convert_state_dict(model, part.path, found)
    if tensors or part.layer is not None:
        if not found:
            raise InputError(f"{source.name}: has no tensors {part.path}.*")
        what = "final norm" if part.layer is None else f"layer {part.layer}"
        check_tensors(part.module, tensors, f"{source.name}: {what}")
        check_finite(tensors, f"{source.name}: {what}")
    return tensors


def _check_expected(found: Mapping[int, str], section: LLM, source: Source) -> None:
    """Raise InputError naming the first layer that is not the one that the parameters name."""
    for layer, sha256 in found.items():
        if (wanted := section.layer_sha256.get(layer, sha256)) != sha256:
            raise InputError(
                f"llm.layer_sha256.{layer}: found {wanted}, but layer {layer} of {source.name} has {sha256}"
            )


def _write(path: Path, tensors: dict[str, Tensor], source: Source, layer: int | None, sha256: str) -> None:
    """Write a module's file, with a note of what it is. One entry: safetensors writes several in changing order."""
    described = {name: _describe(source)[name] for name in IDENTITY}
    note = json.dumps({**described, "layer": layer, "tensors_sha256": sha256}, sort_keys=True)
    path.touch()
    mode = path.stat().st_mode  # the usual one; save_file's own is for the owner only
    try:
        save_file(tensors, path, {"llm4seg": note})
    except SafetensorError as error:
        raise OSError(f"{path}: {error}") from None  # a full disk
    path.chmod(mode)
