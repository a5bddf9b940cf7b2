"""From an LLM's source to a filled layer store."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor, nn

from llm4seg.errors import InputError
from llm4seg.files import read_json, replacing, write_json
from llm4seg.llm.architecture import check_tensors, skeleton
from llm4seg.llm.renamed import as_built
from llm4seg.llm.sources import Source, check_layers, open_source
from llm4seg.llm.store import CONFIG, NORM_FILE, LayerStore, layer_file, tensors_sha256
from llm4seg.llm.supported import check_supported
from llm4seg.sections import LLM


def fill_store(folder: Path, section: LLM, layers: Sequence[int], cache: Path) -> LayerStore:
    """Make `folder` a layer store that holds `layers` of the LLM that `section` names, whole or not at all.

    Layers already there stay and are not read again, if they are of the same source; another source replaces them all.
    Raises InputError: see `open_source`; also for a layer out of range, and for tensors that the architecture lacks.
    """
    source = open_source(section, cache)
    check_layers(layers, source)
    described = _describe(source)
    held = _held(folder, described)
    missing = sorted(set(layers) - held.keys())
    if missing:
        with replacing(folder) as partial:
            partial.mkdir()
            for layer in held:
                os.link(folder / layer_file(layer), partial / layer_file(layer))
            written, norm = _write_modules(partial, missing, source, described)
            write_json(partial / CONFIG, described | _listed(held | written, norm))
    return LayerStore(folder)


def select_layers(store: LayerStore, layers: Sequence[int], folder: Path) -> LayerStore:
    """Make `folder` a layer store of these layers alone, whole or not at all: what a model depends on, and no more."""
    with replacing(folder) as partial:
        partial.mkdir()
        for path in [*(store.path(layer) for layer in layers), *([store.norm_path] if store.norm_sha256 else [])]:
            os.link(path, partial / path.name)
        described = read_json(store.folder / CONFIG)
        write_json(partial / CONFIG, described | _listed({n: store.sha256(n) for n in layers}, store.norm_sha256))
    return LayerStore(folder)


def _listed(layers: Mapping[int, str], norm: str | None) -> dict[str, Any]:
    """What the store's config.json says of its files: the sha256 of each layer's tensors, and of the final norm's."""
    return {"layers": {str(layer): layers[layer] for layer in sorted(layers)}, "norm": norm}


def _describe(source: Source) -> dict[str, Any]:
    return {
        "source": source.name,
        "revision": source.revision,
        "sha256": source.sha256,
        "licence": source.checkpoint.licence,
        "architecture": source.checkpoint.config,
    }


def _held(folder: Path, described: dict[str, Any]) -> dict[int, str]:
    """The sha256 of each layer in the store, if all that the store says of its source is what is wanted now."""
    if not (folder / CONFIG).exists():
        return {}
    present = read_json(folder / CONFIG)
    layers = {int(layer): sha256 for layer, sha256 in present.pop("layers", {}).items()}
    norm = present.pop("norm", None)
    same = present == described and (norm is None or (folder / NORM_FILE).exists())
    return {layer: sha256 for layer, sha256 in layers.items() if same and (folder / layer_file(layer)).exists()}


def _write_modules(
    folder: Path, layers: Sequence[int], source: Source, described: dict[str, Any]
) -> tuple[dict[int, str], str | None]:
    """Read layers and the final norm from the source, check and write them; returns the sha256 of their tensors.

    An LLM without a final norm of the usual kind is fine until `model.llm.norm` asks for it.
    """
    model, written = skeleton(source.checkpoint.config), {}
    check_supported(model, layers)
    for layer in layers:
        tensors = _read(source, model, f"layers.{layer}", model.layers[layer], f"layer {layer}")
        written[layer] = _write(folder / layer_file(layer), tensors, {**described, "layer": layer})
    norms = [(name, module) for name, module in model.named_children() if "norm" in name]
    if len(norms) != 1 or not (tensors := _read(source, model, *norms[0], "final norm")):
        return written, None
    return written, _write(folder / NORM_FILE, tensors, {**described, "layer": None})


def _read(source: Source, model: Any, path: str, module: nn.Module, what: str) -> dict[str, Tensor]:
    """A module's tensors, checked against the architecture; only a final norm may be absent."""
    found = source.checkpoint.tensors(path, module.state_dict().keys())
    tensors = as_built(model, path, found)
    if tensors or path.startswith("layers."):
        if not found:
            raise InputError(f"{source.name}: has no tensors {path}.*")
        check_tensors(module, tensors, f"{source.name}: {what}")
    return tensors


def _write(path: Path, tensors: dict[str, Tensor], described: dict[str, Any]) -> str:
    """Write a module's file; returns the sha256 of its tensors."""
    sha256 = tensors_sha256(tensors)
    # one entry: safetensors writes several in an order that changes from run to run
    note = {"llm4seg": json.dumps({**described, "tensors_sha256": sha256}, sort_keys=True)}
    path.write_bytes(save(tensors, note))  # unlike save_file, this raises OSError on a full disk
    return sha256
