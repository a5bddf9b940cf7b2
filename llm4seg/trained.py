"""A trained model on disk: weights.safetensors without the LLM, and model.json that says what they belong to."""

import shutil
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

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


def describe(config: Config, data: dict[str, Any]) -> dict[str, Any]:
    """What a person or a program needs to know of a model: how it was made and what it needs to run.

    `data`: see `describe_data`.
    """
    plain = config.plain()
    return {
        "config": {name: plain[name] for name in SECTIONS},
        "llm": describe_llm(config),
        "data": data,
        "versions": versions(),
        "git_commit": git_commit(Path(__file__).parent),
    }


def describe_data(data: Prepared) -> dict[str, Any]:
    """The data that a model was trained on."""
    return {
        "name": data.name,
        "sha256": data.sha256,
        "spatial_dims": data.spatial_dims,
        "channels": data.channels,
        "classes": list(data.classes),
        "size": list(data.size),
    }


def describe_llm(config: Config) -> dict[str, Any] | None:
    """The LLM in use, each of its layers bound by its sha256; None where there is none."""
    if config.model.bottleneck != "llm":
        return None
    store, block = LayerStore(config.paths.llm_used), config.model.llm
    return {
        "source": store.source,
        "revision": store.revision,
        "source_sha256": store.source_sha256,
        "licence": store.licence,
        "layers": [{"layer": layer, "sha256": store.sha256(layer)} for layer in block.layer],
        "norm_sha256": store.norm_sha256 if block.norm else None,
    }


def save_trained(folder: Path, weights: Path, config: Config, data: Prepared) -> None:
    """Write a trained model's folder, whole or not at all."""
    with replacing(folder) as partial:
        partial.mkdir()
        shutil.copyfile(weights, partial / WEIGHTS)
        write_json(partial / DESCRIPTION, describe(config, describe_data(data)))


def read_description(folder: Path) -> tuple[dict[str, Any], Model]:
    """What model.json says, and its `model` section. Raises InputError when it is no description of a model."""
    description = read_json(folder / DESCRIPTION)
    try:
        return description, Model.model_validate(description["config"]["model"])
    except (KeyError, TypeError, ValidationError) as error:
        reason = ".".join(map(str, error.errors()[0]["loc"])) if isinstance(error, ValidationError) else error
        raise InputError(f"{folder / DESCRIPTION}: not a model that this version can read: {reason}") from None


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The weights of a trained model by name. Raises InputError when the file is missing or broken."""
    try:
        return load_file(folder / WEIGHTS)
    except (SafetensorError, FileNotFoundError) as error:
        raise InputError(f"{folder / WEIGHTS}: cannot be read: {error}") from None


def load_trained(folder: Path, store_folder: Path) -> Hybrid:
    """Rebuild a trained model in evaluation mode. Raises InputError when the LLM layer is not the one it had."""
    description, section = read_description(folder)
    training, data = description["config"]["training"], description["data"]
    store = None if section.bottleneck == "identity" else LayerStore(store_folder)
    if store and description["llm"] is not None:
        _check_llm(store, description["llm"], folder)
    model = build_model(
        _without_pretrained(section),
        store,
        spatial_dims=data["spatial_dims"],
        in_channels=data["channels"],
        out_channels=out_channels(training["loss"], len(data["classes"])),
        seed=training["seed"] or 0,  # null: not known, and no weight of a converted model is drawn
        size=data["size"],
    )
    model.load_weights(read_weights(folder))
    return model.eval()


def begin_from(model: Hybrid, folder: Path) -> None:
    """Give an untrained model the weights of a trained one that have its names and shapes: what fits of the decoder and
    the bottleneck, and all of the encoder. Raises InputError when the encoder is another one.
    """
    found, wanted = read_weights(folder), model.weights()
    fitting = {name: tensor for name, tensor in found.items() if name in wanted and tensor.shape == wanted[name].shape}
    if missing := sorted(name for name in wanted if name.startswith("encoder.") and name not in fitting):
        raise InputError(f"training.init_from: found {folder}, whose model has no {missing[0]} like this one's")
    model.load_weights({**wanted, **fitting})


def _without_pretrained(section: Model) -> Model:
    """The section without pre-trained weights for the encoder: they need not be fetched to be replaced."""
    return section.model_copy(update={"smp": section.smp.model_copy(update={"weights": None})})


def check_data(folder: Path, data: Prepared) -> None:
    """Raise InputError unless a trained model takes images like these and tells as many classes apart."""
    trained = read_description(folder)[0]["data"]
    for what, found, allowed in (
        ("spatial dimensions", data.spatial_dims, trained["spatial_dims"]),
        ("channels", data.channels, trained["channels"]),
        ("classes", len(data.classes), len(trained["classes"])),
    ):
        if found != allowed:
            raise InputError(f"{data.folder}: found {found} {what}, allowed: {allowed}, those of the model in {folder}")


def _check_llm(store: LayerStore, trained_with: dict[str, Any], folder: Path) -> None:
    """Raise InputError naming the first layer that is not the one that the model was trained with."""
    wanted = {f"layer {one['layer']}": one["sha256"] for one in trained_with["layers"]}
    found = {f"layer {one['layer']}": store.sha256(one["layer"]) for one in trained_with["layers"]}
    if trained_with["norm_sha256"] is not None:
        wanted["the final norm"], found["the final norm"] = trained_with["norm_sha256"], store.norm_sha256 or "none"
    for name, sha256 in wanted.items():
        if found[name] != sha256:
            raise InputError(
                f"{folder / DESCRIPTION}: trained with {name} of {trained_with['source']}, sha256 {sha256[:12]}; "
                f"the layer store has sha256 {found[name][:12]} (from {store.source})"
            )
