"""A trained model on disk: weights.safetensors without the LLM, and model.json that says what they belong to."""

import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from llm4seg.config import Config
from llm4seg.data.prepared import Prepared
from llm4seg.errors import InputError
from llm4seg.files import read_json, replacing, write_json
from llm4seg.llm.store import LayerStore
from llm4seg.losses import out_channels
from llm4seg.models import Hybrid, build_model
from llm4seg.provenance import git_commit, versions
from llm4seg.sections import Model

WEIGHTS = "weights.safetensors"
DESCRIPTION = "model.json"
SECTIONS = ("model", "optimizer", "training", "engine")  # what decides the weights, beside data and LLM layer


def describe(config: Config, data: Prepared) -> dict[str, Any]:
    """What a person or a program needs to know of a model: how it was made and what it needs to run."""
    plain = config.plain()
    return {
        "config": {name: plain[name] for name in SECTIONS},
        "llm": describe_layer(config),
        "data": {
            "name": data.name,
            "sha256": data.sha256,
            "spatial_dims": data.spatial_dims,
            "channels": data.channels,
            "classes": list(data.classes),
            "size": list(data.size),
        },
        "versions": versions(),
        "git_commit": git_commit(Path(__file__).parent),
    }


def describe_layer(config: Config) -> dict[str, Any] | None:
    """The LLM layer in use, bound by its sha256; None for the CNN alone."""
    if config.model.bottleneck != "llm":
        return None
    store, layer = LayerStore(config.paths.llm), config.model.llm.layer
    return {
        "source": store.source,
        "revision": store.revision,
        "source_sha256": store.source_sha256,
        "licence": store.licence,
        "layer": layer,
        "layer_sha256": store.sha256(layer),
    }


def save_trained(folder: Path, weights: Path, config: Config, data: Prepared) -> None:
    """Write a trained model's folder, whole or not at all."""
    with replacing(folder) as partial:
        partial.mkdir()
        shutil.copyfile(weights, partial / WEIGHTS)
        write_json(partial / DESCRIPTION, describe(config, data))


def load_trained(folder: Path, store_folder: Path) -> Hybrid:
    """Rebuild a trained model in evaluation mode. Raises InputError when the LLM layer is not the one it had."""
    description = read_json(folder / DESCRIPTION)
    section, data = Model.model_validate(description["config"]["model"]), description["data"]
    store = None
    if description["llm"] is not None:
        store = LayerStore(store_folder)
        _check_layer(store, description["llm"], folder)
    model = build_model(
        section,
        store,
        spatial_dims=data["spatial_dims"],
        in_channels=data["channels"],
        out_channels=out_channels(description["config"]["training"]["loss"], len(data["classes"])),
    )
    try:
        model.load_weights(load_file(folder / WEIGHTS))
    except (SafetensorError, FileNotFoundError) as error:
        raise InputError(f"{folder / WEIGHTS}: cannot be read: {error}") from None
    return model.eval()


def _check_layer(store: LayerStore, trained_with: dict[str, Any], folder: Path) -> None:
    layer, wanted = trained_with["layer"], trained_with["layer_sha256"]
    if (found := store.sha256(layer)) != wanted:
        raise InputError(
            f"{folder / DESCRIPTION}: trained with layer {layer} of {trained_with['source']}, sha256 {wanted[:12]}; "
            f"the layer store has sha256 {found[:12]} (from {store.source})"
        )
