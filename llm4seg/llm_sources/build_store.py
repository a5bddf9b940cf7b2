"""The layer store, filled from an LLM's source."""

import errno
import json
import logging
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
from llm4seg.llm.architecture import check_finite, check_tensors, final_norms, layer_list, meta_model
from llm4seg.llm.encoder import is_encoder
from llm4seg.llm.store import CONFIG, NORM_FILE, LayerStore, layer_file, read_verified, tensors_sha256
from llm4seg.llm_sources.sources import Checkpoint, Source, check_layers, open_source
from llm4seg.llm_sources.state_dict_conversion import PublishedNames, convert_state_dict
from llm4seg.llm_sources.supported import layer_specs
from llm4seg.utils.errors import InputError, UserError
from llm4seg.utils.files import read_json, replacing, write_json

log = logging.getLogger(__name__)

# error codes of file systems without hard links; EPERM: exFAT, among others
NO_LINKS = (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK)
IDENTITY = ("source", "revision", "licence", "architecture")  # in a layer's own file, beside its sha256


@dataclass(frozen=True)
class CachedLayers:
    """The intact layers of the wanted LLM that the store has already."""

    layers: dict[int, str] = field(default_factory=dict)  # layer: sha256 of its tensors
    norm: str | None = None
    certain: bool = False  # the source cannot have changed since
    current: bool = False  # config.json still describes the source, the layers and the files


def fill_store(folder: Path, section: LLM, layers: Sequence[int], cache: Path) -> LayerStore:
    """Fill the layer store `folder` with `layers` of the LLM that `section` names, atomically.

    Intact layers of the same source stay; another source replaces them all. Where the source may have changed, since
    its place has no versions, its layers are read again and compared.
    Raises InputError: see `open_source`; also for a layer out of range or other than `llm.layer_sha256`, and for
    tensors that do not fit the architecture.
    """
    source = open_source(section, cache)
    check_layers(layers, source)
    cached = _cached(folder, source)
    if cached.certain and cached.current and set(layers) <= cached.layers.keys():
        _check_expected(cached.layers, section, source)
        log.debug("%s: layers %s are there, of %s", folder, [*layers], source.name)
    else:
        with replacing(folder) as partial:
            partial.mkdir()
            _fill(partial, folder, {*layers, *cached.layers}, cached, source, section)
    return LayerStore(folder)


def select_layers(store: LayerStore, layers: Sequence[int], folder: Path) -> LayerStore:
    """Write a layer store with these layers alone to `folder`, atomically: all that a model depends on."""
    with replacing(folder) as partial:
        partial.mkdir()
        for path in [*(store.path(layer) for layer in layers), *([store.norm_path] if store.norm_sha256 else [])]:
            _link_or_copy(path, partial / path.name)
        described = read_json(store.folder / CONFIG)
        write_json(partial / CONFIG, described | _listed({n: store.sha256(n) for n in layers}, store.norm_sha256))
    return LayerStore(folder)


def _link_or_copy(path: Path, new: Path) -> None:
    """Hard-link a file; copy it where the file system has no links, or not between the two folders."""
    try:
        os.link(path, new)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        shutil.copyfile(path, new)


def _listed(layers: Mapping[int, str], norm: str | None) -> dict[str, Any]:
    """Entries of the store's config.json on its files: the sha256 of each layer's tensors, and of the final norm's."""
    return {"layers": {str(layer): layers[layer] for layer in sorted(layers)}, "norm": norm}


def _describe(source: Source) -> dict[str, Any]:
    """Entries of the store's config.json on the source, and the version of the code that checked its layers."""
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
    """The intact layers of a store; none where it was filled from another source."""
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
    """A store's config.json; empty where it is missing or unreadable, so that all layers are fetched again."""
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
    """A module of the LLM and its file in the store; `cached`: the sha256 of its tensors where the file is intact."""

    path: str
    published: str  # its path in the checkpoint
    module: nn.Module
    layer: int | None  # None: the final norm
    cached: str | None

    @property
    def file(self) -> str:
        return NORM_FILE if self.layer is None else layer_file(self.layer)


def _parts(model: Any, checkpoint: Checkpoint, layers: Collection[int], cached: CachedLayers) -> Iterator[Part]:
    """The layers and the final norm, which an LLM may lack as long as `model.llm.norm` is off."""
    published = PublishedNames(model, checkpoint.names if is_encoder(model) else ())
    inside, modules = layer_list(model)
    for layer in sorted(layers):
        path = f"{inside}.{layer}"
        yield Part(path, published.path(path), modules[layer], layer, cached.layers.get(layer))
    norms = final_norms(model)
    if len(norms) == 1:
        ((name, module),) = norms
        yield Part(name, published.path(name), module, None, cached.norm)


def _fill(new: Path, old: Path, layers: Collection[int], cached: CachedLayers, source: Source, section: LLM) -> None:
    """Write a store: files of the old store that are certain are linked, all others read from the source."""
    model = meta_model(source.checkpoint.config)
    specs = layer_specs(model, range(len(layer_list(model)[1])))  # of all layers: random ones need not be fetched
    for layer in sorted(layers):
        if isinstance(reason := specs.get(layer), str):
            raise InputError(reason)
    parts = list(_parts(model, source.checkpoint, layers, cached))
    reading = [part for part in parts if not (cached.certain and part.cached)]
    nbytes = sum(source.checkpoint.nbytes(part.published, part.module.state_dict()) for part in reading)
    log.debug("%s: %d of %d modules are read, %.1f MB", source.name, len(reading), len(parts), nbytes / 1e6)
    layer_sha256: dict[int, str] = {}
    norm = None
    with source.storage.progress(nbytes):
        for part in parts:
            sha256 = _refresh(new, old, part, source, model) if part in reading else _link(new, old, part)
            if part.layer is None:
                norm = sha256
            elif sha256 is not None:
                layer_sha256[part.layer] = sha256
    _check_expected(layer_sha256, section, source)
    described = {str(layer): spec if isinstance(spec, str) else spec.plain() for layer, spec in specs.items()}
    write_json(new / CONFIG, _describe(source) | {"layer_specs": described} | _listed(layer_sha256, norm))


def _link(new: Path, old: Path, part: Part) -> str | None:
    _link_or_copy(old / part.file, new / part.file)
    return part.cached


def _refresh(new: Path, old: Path, part: Part, source: Source, model: Any) -> str | None:
    """Read a module; returns the sha256 of its tensors, None if there are none. The old file stays if equal."""
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
    raw = source.checkpoint.tensors(part.published, part.module.state_dict().keys())
    tensors = convert_state_dict(model, part.path, raw)
    if tensors or part.layer is not None:
        if not raw:
            raise InputError(f"{source.name}: has no tensors {part.published}.*")
        what = "final norm" if part.layer is None else f"layer {part.layer}"
        check_tensors(part.module, tensors, f"{source.name}: {what}")
        _check_floating(tensors, f"{source.name}: {what}")
        check_finite(tensors, f"{source.name}: {what}")
    return tensors


def _check_floating(tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise InputError for whole numbers: of a quantized matrix, whose scale is missing."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise InputError(
                f"{where}: {name}: found {dtype} without a scale, allowed: floating point; "
                "take the checkpoint from before it was quantized"
            )


def _check_expected(layers: Mapping[int, str], section: LLM, source: Source) -> None:
    """Raise InputError naming the first layer whose sha256 is not that of `llm.layer_sha256`."""
    for layer, sha256 in layers.items():
        if (wanted := section.layer_sha256.get(layer, sha256)) != sha256:
            raise InputError(
                f"llm.layer_sha256.{layer}: found {wanted}, but layer {layer} of {source.name} has {sha256}"
            )


def _write(path: Path, tensors: dict[str, Tensor], source: Source, layer: int | None, sha256: str) -> None:
    """Write a module's file with metadata, in one entry: safetensors writes several in changing order."""
    described = {name: _describe(source)[name] for name in IDENTITY}
    note = json.dumps({**described, "layer": layer, "tensors_sha256": sha256}, sort_keys=True)
    path.touch()
    mode = path.stat().st_mode  # by the umask; save_file's mode is for the owner only
    try:
        save_file(tensors, path, {"llm4seg": note})
    except SafetensorError as error:
        raise OSError(f"{path}: {error}") from None  # a full disk
    path.chmod(mode)
