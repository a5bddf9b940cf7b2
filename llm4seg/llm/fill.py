"""From an LLM's source to a filled layer store."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from llm4seg.files import read_json, replacing, write_json
from llm4seg.llm.architecture import check_tensors, skeleton
from llm4seg.llm.sources import Source, check_layers, open_source
from llm4seg.llm.store import CONFIG, LayerStore, layer_file, tensors_sha256
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
            held |= _write_layers(partial, missing, source, described)
            write_json(partial / CONFIG, described | {"layers": {str(layer): held[layer] for layer in sorted(held)}})
    return LayerStore(folder)


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
    same = present == described
    return {layer: sha256 for layer, sha256 in layers.items() if same and (folder / layer_file(layer)).exists()}


def _write_layers(folder: Path, layers: Sequence[int], source: Source, described: dict[str, Any]) -> dict[int, str]:
    """Read layers from the source, check them against the architecture and write them; returns their sha256."""
    model, written = skeleton(source.checkpoint.config), {}
    for layer in layers:
        tensors = source.checkpoint.layer(layer)
        check_tensors(model.layers[layer], tensors, f"{source.name}: layer {layer}")
        written[layer] = _write_layer(folder / layer_file(layer), tensors, {**described, "layer": layer})
    return written


def _write_layer(path: Path, tensors: dict[str, Tensor], described: dict[str, Any]) -> str:
    """Write a layer's file; returns the sha256 of its tensors."""
    sha256 = tensors_sha256(tensors)
    # one entry: safetensors writes several in an order that changes from run to run
    note = {"llm4seg": json.dumps({**described, "tensors_sha256": sha256}, sort_keys=True)}
    path.write_bytes(save(tensors, note))  # unlike save_file, this raises OSError on a full disk
    return sha256
