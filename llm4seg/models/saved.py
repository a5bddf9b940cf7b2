"""A trained model on disk: weights.safetensors without the frozen LLM, and model.json that describes it."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from llm4seg.config import Config
from llm4seg.config.earlier import current_sections
from llm4seg.config.schema import Augment, Model
from llm4seg.data.intensity import Intensity
from llm4seg.data.label_scheme import LabelScheme
from llm4seg.data.patch_size import resolve_auto
from llm4seg.data.prepared import Prepared
from llm4seg.data.preprocessing import Preprocessing
from llm4seg.llm.store import LayerStore, find_store, named_store
from llm4seg.models import Hybrid, build_model
from llm4seg.models.bottleneck import LLMLayers
from llm4seg.models.hybrid import BOTTLENECK
from llm4seg.objectives.losses import out_channels
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import read_json, replacing, write_json
from llm4seg.utils.provenance import git_commit, versions

WEIGHTS = "weights.safetensors"
DESCRIPTION = "model.json"
DIGITS = 12  # of the sha256 of each image that a model of a study has seen
SECTIONS = ("model", "optimizer", "training", "engine")  # what decides the weights, beside data and LLM layer


def describe(config: Config, data: dict[str, Any], engine: str | None) -> dict[str, Any]:
    """The content of model.json: how a model was made and what it needs to run.

    `data`: see `describe_data`; `engine`: the engine that ran, where `engine.name` may be `auto`; None: unknown.
    """
    plain = config.plain()
    return {
        "config": {name: plain[name] for name in SECTIONS},
        "engine": engine,
        "llm": describe_llm(config),
        "drawn_sha256": describe_drawn(config),
        "data": data,
        "versions": versions(),
        "git_commit": git_commit(Path(__file__).parent),
    }


def describe_data(data: Prepared) -> dict[str, Any]:
    """The entry of model.json on the training data: all that it takes to make a network's input of an image file, and
    a mask of its output.
    """
    return {"name": data.name, "sha256": data.sha256, **data.scheme.plain(), **data.preprocessing.plain()}


def describe_llm(config: Config) -> dict[str, Any] | None:
    """The entry of model.json on the LLM, with the sha256 of each of its layers; None where there is none."""
    if config.model.bottleneck != "llm":
        return None
    block = config.model.llm
    store, configured = named_store(config.paths.llm_used, block.source), config.llm.named[block.source]
    return {
        "source": store.source,
        "address": source_address(store.source, store.revision, configured.source),
        "revision": store.revision,
        "source_sha256": store.source_sha256,
        "licence": store.license,
        "layers": [{"layer": layer, "sha256": store.sha256(layer)} for layer in block.layer],
        "norm_sha256": store.norm_sha256 if block.norm else None,
    }


def source_address(source: str, revision: str | None, configured: str) -> str | None:
    """Where the layers of a store can be fetched again: its source, of the hub at the same commit.

    A source on this machine is named by the end of its path alone; the whole one is `configured`. None: unknown.
    """
    if "://" not in source:
        return configured if Path(configured).name == source else None
    scheme, _, rest = source.partition("://")
    if scheme != "hf" or revision is None:
        return source
    organization, name, *inner = rest.split("/")
    return "/".join([f"hf://{organization}/{name}@{revision}", *inner])


def describe_drawn(config: Config) -> dict[str, str]:
    """The sha256 of random LLM layers that come from `training.seed` and are in no weights file."""
    block = config.model.llm
    if config.model.bottleneck != "llm" or block.weights == "pretrained" or block.training == "full":
        return {}
    return LLMLayers(block, named_store(config.paths.llm_used, block.source), config.training.seed).random_sha256


def save_trained(
    folder: Path, weights: Path, config: Config, data: Prepared, engine: str, seen: Sequence[str] = ()
) -> None:
    """Write a trained model's folder, atomically; `data` are as `training_inputs` gave them. `seen`: cases of training
    and validation, to be recorded by their images' sha256.
    """
    description = describe(resolve_auto(config, data), describe_data(data), engine)
    if seen:
        description["seen"] = sorted({data.cases[case_id].sha256[:DIGITS] for case_id in seen})
    with replacing(folder) as partial:
        partial.mkdir()
        shutil.copyfile(weights, partial / WEIGHTS)
        write_json(partial / DESCRIPTION, description)


def seen_cases(folder: Path, data: Prepared, case_ids: Sequence[str]) -> list[str]:
    """The cases that a trained model saw in training or validation, of a model that recorded them; else none."""
    seen = set(read_metadata(folder)[0].get("seen", ()))
    return [case_id for case_id in case_ids if data.cases[case_id].sha256[:DIGITS] in seen]


def read_metadata(folder: Path) -> tuple[dict[str, Any], Model]:
    """Read model.json, with renamed values replaced, and its `model` section. Raises InputError where it is broken."""
    description = read_json(folder / DESCRIPTION)
    try:
        description["config"] = current_sections(description["config"])
        return description, Model.model_validate(description["config"]["model"])
    except (KeyError, TypeError, ValidationError) as error:
        reason = ".".join(map(str, error.errors()[0]["loc"])) if isinstance(error, ValidationError) else error
        raise InputError(f"{folder / DESCRIPTION}: not a model that this version can read: {reason}") from None


def trained_augment(folder: Path) -> Augment | None:
    """How the images of a model's training were augmented; None for a converted checkpoint, which does not say.

    Raises InputError where model.json is broken.
    """
    description, _ = read_metadata(folder)
    try:
        section = description["config"]["training"]["augment"]
        return None if section is None else Augment.model_validate(section)
    except (KeyError, TypeError, ValidationError) as error:
        raise InputError(f"{folder / DESCRIPTION}: not a model that this version can read: augment: {error}") from None


def read_data(folder: Path) -> tuple[Preprocessing, LabelScheme]:
    """What a trained model reads, and what its labels mean. Raises InputError where model.json is broken."""
    description, _ = read_metadata(folder)
    try:
        data = description["data"]
        return Preprocessing.parse(data), LabelScheme.parse(data)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder / DESCRIPTION}: not a model that this version can read: data: {error!r}") from None


def trained_intensity(folder: Path) -> Intensity | None:
    """How a trained model's volumes were normalized; None where it was trained on images of one size."""
    return read_data(folder)[0].normalization


def as_trained(folder: Path, data: Prepared) -> Prepared:
    """The data as a trained model reads them: volumes in patches of its size, by the statistics of its training."""
    intensity = None if data.spacing is None else trained_intensity(folder)
    if intensity is None:
        return data
    return data.for_network(read_metadata(folder)[0]["data"]["size"], intensity)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The weights of a trained model by name. Raises InputError when the file is missing or broken."""
    try:
        return load_file(folder / WEIGHTS)
    except (SafetensorError, FileNotFoundError) as error:
        raise InputError(f"{folder / WEIGHTS}: cannot be read: {error}") from None


def needs_layers(section: Model) -> bool:
    """Whether a trained model's prediction passes through layers of an LLM."""
    return section.bottleneck == "llm" and not section.llm.train_only


def load_trained(folder: Path, store_folder: Path | None) -> Hybrid:
    """Load a trained model in evaluation mode. Raises InputError when an LLM layer differs from training.

    `store_folder` may hold stores of several LLMs, whose names may be others than in training: its layers' sha256
    choose one. Without it, a block that is for training alone is left out; a model that `needs_layers` needs it.
    """
    description, section = read_metadata(folder)
    training, data, weights = description["config"]["training"], description["data"], read_weights(folder)
    mlp_width = None
    if store_folder is None:
        assert not needs_layers(section)
        if section.llm.train_only:
            section = section.model_copy(update={"bottleneck": "identity"})
            weights = {name: tensor for name, tensor in weights.items() if not name.startswith(BOTTLENECK)}
    if section.bottleneck == "mlp":
        mlp_width = len(weights[f"{BOTTLENECK}adapter_in.weight"])
    store = trained_store(folder, store_folder) if store_folder and section.bottleneck == "llm" else None
    model = build_model(
        _without_pretrained(section),
        store,
        spatial_dims=data["spatial_dims"],
        in_channels=data["channels"],
        out_channels=out_channels(training["loss"], LabelScheme.parse(data)),
        seed=training["seed"] or 0,  # null: unknown, and no weight of a converted model is random
        size=data["size"],
        deep_supervision=bool(training["deep_supervision"]),  # null: of a converted model, which has none
        mlp_width=mlp_width,
    )
    _check_drawn(model, description, folder)
    model.load_weights(weights)
    return model.eval()


def trained_store(folder: Path, store_folder: Path) -> LayerStore:
    """The store among those in `store_folder` with the LLM layers of a trained model, whatever the LLM's name is there.

    Raises InputError naming the first layer that differs from the model's in training.
    """
    description, section = read_metadata(folder)
    name, trained_with = section.llm.source, description["llm"]
    if trained_with is None:
        return named_store(store_folder, name)
    layers = {one["layer"]: one["sha256"] for one in trained_with["layers"]}
    store = find_store(store_folder, layers, trained_with["norm_sha256"], name)
    _check_llm(store, trained_with, folder)
    return store


def _without_pretrained(section: Model) -> Model:
    """The section without pre-trained weights of the encoder, which would only be downloaded to be replaced."""
    return section.model_copy(update={"smp": section.smp.model_copy(update={"weights": None})})


def _check_drawn(model: Hybrid, description: dict[str, Any], folder: Path) -> None:
    """Raise InputError naming the first random LLM layer that the same seed makes otherwise here."""
    core = getattr(model.bottleneck, "core", None)
    found = core.random_sha256 if isinstance(core, LLMLayers) else {}
    for name, sha256 in description.get("drawn_sha256", {}).items():  # absent in older models
        if found[name] != sha256:
            made_by = " and ".join(f"{one} {description['versions'][one]}" for one in ("torch", "transformers"))
            raise InputError(
                f"{folder / DESCRIPTION}: trained with {name} drawn at random, sha256 {sha256[:12]}; here the same "
                f"seed draws {found[name][:12]}; allowed: {made_by}, which drew it"
            )


def _check_llm(store: LayerStore, trained_with: dict[str, Any], folder: Path) -> None:
    """Raise InputError naming the first layer that differs from the model's in training."""
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
