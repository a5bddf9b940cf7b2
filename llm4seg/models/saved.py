"""A trained model on disk: weights.safetensors without the frozen LLM, and model.json that describes it."""

import shutil
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from llm4seg.config import Config
from llm4seg.config.config import INIT
from llm4seg.config.earlier import current_sections
from llm4seg.config.schema import Model
from llm4seg.data.intensity import Intensity
from llm4seg.data.label_scheme import LabelScheme
from llm4seg.data.prepared import Prepared
from llm4seg.llm.store import LayerStore
from llm4seg.models import Hybrid, build_model
from llm4seg.models.bottleneck import LLMLayers
from llm4seg.models.hybrid import BOTTLENECK
from llm4seg.objectives.losses import out_channels
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import read_json, replacing, sha256_file, write_json
from llm4seg.utils.provenance import git_commit, versions

WEIGHTS = "weights.safetensors"
DESCRIPTION = "model.json"
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
        "drawn_sha256": _describe_drawn(config),
        "data": data,
        "versions": versions(),
        "git_commit": git_commit(Path(__file__).parent),
    }


def describe_data(data: Prepared) -> dict[str, Any]:
    """The entry of model.json on the training data, as the network read them: `size` is that of its input.

    Of volumes at a spacing also that, and how they were normalized, with the statistics of the training part.
    """
    volumes: dict[str, Any] = {}
    if data.spacing is not None:
        assert data.normalization is not None
        volumes = {"spacing": list(data.spacing), "normalization": data.normalization.plain()}
    return {
        "name": data.name,
        "sha256": data.sha256,
        "spatial_dims": data.spatial_dims,
        "channels": data.channels,
        **data.scheme.plain(),
        "size": list(data.size),
        "intensity": data.intensity,
        "window": None if data.window is None else list(data.window),
        **volumes,
    }


def describe_llm(config: Config) -> dict[str, Any] | None:
    """The entry of model.json on the LLM, with the sha256 of each of its layers; None where there is none."""
    if config.model.bottleneck != "llm":
        return None
    store, block = LayerStore(config.paths.llm_used), config.model.llm
    return {
        "source": store.source,
        "revision": store.revision,
        "source_sha256": store.source_sha256,
        "licence": store.license,
        "layers": [{"layer": layer, "sha256": store.sha256(layer)} for layer in block.layer],
        "norm_sha256": store.norm_sha256 if block.norm else None,
    }


def _describe_drawn(config: Config) -> dict[str, str]:
    """The sha256 of random LLM layers that come from `training.seed` and are in no weights file."""
    block = config.model.llm
    if config.model.bottleneck != "llm" or block.weights == "pretrained" or block.training == "full":
        return {}
    return LLMLayers(block, LayerStore(config.paths.llm_used), config.training.seed).random_sha256


def save_trained(folder: Path, weights: Path, config: Config, data: Prepared, engine: str) -> None:
    """Write a trained model's folder, atomically; `data` are as `training_inputs` gave them."""
    with replacing(folder) as partial:
        partial.mkdir()
        shutil.copyfile(weights, partial / WEIGHTS)
        write_json(partial / DESCRIPTION, describe(config, describe_data(data), engine))


def read_metadata(folder: Path) -> tuple[dict[str, Any], Model]:
    """Read model.json, with renamed values replaced, and its `model` section. Raises InputError where it is broken."""
    description = read_json(folder / DESCRIPTION)
    try:
        description["config"] = current_sections(description["config"])
        return description, Model.model_validate(description["config"]["model"])
    except (KeyError, TypeError, ValidationError) as error:
        reason = ".".join(map(str, error.errors()[0]["loc"])) if isinstance(error, ValidationError) else error
        raise InputError(f"{folder / DESCRIPTION}: not a model that this version can read: {reason}") from None


def trained_intensity(folder: Path) -> Intensity | None:
    """How a trained model's volumes were normalized; None where it was trained on images of one size."""
    plain = read_metadata(folder)[0]["data"].get("normalization")
    return None if plain is None else Intensity.parse(plain)


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


def load_trained(folder: Path, store_folder: Path) -> Hybrid:
    """Load a trained model in evaluation mode. Raises InputError when an LLM layer differs from training."""
    description, section = read_metadata(folder)
    training, data = description["config"]["training"], description["data"]
    store = None if section.bottleneck == "identity" else LayerStore(store_folder)
    if store and description["llm"] is not None:
        _check_llm(store, description["llm"], folder)
    model = build_model(
        _without_pretrained(section),
        store,
        spatial_dims=data["spatial_dims"],
        in_channels=data["channels"],
        out_channels=out_channels(training["loss"], LabelScheme.parse(data)),
        seed=training["seed"] or 0,  # null: unknown, and no weight of a converted model is random
        size=data["size"],
    )
    _check_drawn(model, description, folder)
    model.load_weights(read_weights(folder))
    return model.eval()


def init_from(model: Hybrid, config: Config, scheme: LabelScheme) -> str:
    """Initialize a model from the trained model in `training.init_from`: the encoder, tensors of the decoder with equal
    names and shapes, and the bottleneck where it is the same around the same LLM layers.

    `scheme`: that of the data. Returns a line for the log. Raises InputError when the encoder differs, or a class is
    another logit there.
    """
    folder, expected = config.training.init_from, config.training.init_sha256
    assert folder is not None
    if expected not in (None, sha256 := sha256_file(folder / WEIGHTS)):
        raise InputError(f"training.init_sha256: found {expected}, but that of {folder / WEIGHTS} is {sha256}")
    before = _classes_before(folder, scheme)
    trained, initial = read_weights(folder), model.trainable_state_dict()
    reason = _other_bottleneck(config, folder)
    if reason:
        trained = {name: tensor for name, tensor in trained.items() if not name.startswith(BOTTLENECK)}
    taken = {}
    for name, tensor in initial.items():
        if name in trained and trained[name].shape == tensor.shape:
            taken[name] = trained[name]
    new = sorted(name for name in initial.keys() - taken.keys() if not (reason and name.startswith(BOTTLENECK)))
    if missing := [name for name in new if name.startswith("encoder.")]:
        raise InputError(f"{INIT}: found {folder}, whose model has no {missing[0]} like this one's")
    model.load_weights({**initial, **taken})
    not_taken = [f"the bottleneck, since {reason}"] * bool(reason) + new
    return f"{INIT}: took {len(taken)} tensors of {folder}{before}; new ones: {', '.join(not_taken) or 'none'}"


def _classes_before(folder: Path, scheme: LabelScheme) -> str:
    """The classes of a trained model in words, where its head becomes that of others; else empty.

    Raises InputError when both have a class of one name at different places, or only one has regions: the head would
    begin as that of other things.
    """
    before = LabelScheme.parse(read_metadata(folder)[0]["data"])
    if bool(before.regions) != bool(scheme.regions):
        found, here = (
            f"{'regions' if one.regions else 'classes'} {', '.join(map(str, one.classes))}" for one in (before, scheme)
        )
        raise InputError(f"{INIT}: found {folder}, trained with the {found}, but these data have the {here}")
    trained, classes = before.classes, scheme.classes
    if len(trained) != len(classes) or trained == classes or None in trained:
        return ""
    names = ", ".join(trained)
    if any(one in classes and one != other for one, other in zip(trained, classes, strict=True)):
        raise InputError(
            f"{INIT}: found {folder}, trained with the classes {names}, but these data have {', '.join(classes)}; "
            "allowed: a class of both at the same place, as data.classes orders them"
        )
    return f" (of the classes {names})"


def _other_bottleneck(config: Config, folder: Path) -> str | None:
    """Why a trained model's bottleneck does not fit this one's; None: it fits.

    Names of tensors do not decide: they count LLM layers from the first in the block, so another layer's would match,
    and adapters fit only the layers that they were trained with.
    """
    description, trained = read_metadata(folder)
    if trained.bottleneck != config.model.bottleneck:
        return f"model.bottleneck was {trained.bottleneck}"
    if trained.bottleneck == "identity":
        return None
    for name, value in config.model.llm:
        if (was := getattr(trained.llm, name)) != value:
            return f"model.llm.{name} was {_short(was)}"
    old, new = description["llm"] or {}, describe_llm(config) or {}
    same = all(old.get(name) == new.get(name) for name in ("layers", "norm_sha256"))
    same = same and description.get("drawn_sha256", {}) == _describe_drawn(config)
    return None if same else "its LLM layers were others"


def _short(value: Any) -> str:
    return str([*value] if isinstance(value, tuple) else value)


def _without_pretrained(section: Model) -> Model:
    """The section without pre-trained weights of the encoder, which would only be downloaded to be replaced."""
    return section.model_copy(update={"smp": section.smp.model_copy(update={"weights": None})})


def check_data(folder: Path, data: Prepared) -> None:
    """Raise InputError unless dimensions, channels, spacing, classes and normalization fit a trained model."""
    trained = read_metadata(folder)[0]["data"]
    for what, found, allowed in (
        ("spatial dimensions", data.spatial_dims, trained["spatial_dims"]),
        ("channels", data.channels, trained["channels"]),
    ):
        if found != allowed:
            raise InputError(f"{data.folder}: found {found} {what}, allowed: {allowed}, those of the model in {folder}")
    spacing = None if data.spacing is None else list(data.spacing)
    if spacing != trained.get("spacing"):
        raise InputError(
            f"{data.folder}: found the spacing {spacing} (rows, columns, slices), allowed: {trained.get('spacing')}, "
            f"that of the model in {folder}; set data.grid and data.spacing and run `dvc repro prepare`"
        )
    _check_classes(folder, LabelScheme.parse(trained), data)
    _check_intensities(folder, trained, data)


def _check_classes(folder: Path, trained: LabelScheme, data: Prepared) -> None:
    """Raise InputError unless the data have the model's classes in its order; of unnamed ones, only as many.

    Those of a checkpoint of the released code have no names.
    """
    names, unnamed = trained.classes, None in trained.classes
    same = len(names) == len(data.classes) if unnamed else names == data.classes
    regions, order = data.scheme.regions, data.scheme.regions_class_order
    if same and (regions, order) == (trained.regions, trained.regions_class_order):
        return
    if same:
        raise InputError(
            f"{data.folder}: found classes that cover the labels {[*regions] or 'one each'}, allowed: "
            f"{[*trained.regions] or 'one each'}, as the model in {folder} was trained"
        )
    allowed = str(len(names)) if unnamed else f"{', '.join(map(str, names))}, in this order"
    raise InputError(
        f"{data.folder}: found the classes {', '.join(data.classes)}, allowed: {allowed}, as the model in {folder} was "
        "trained; name and order data.classes so and run `dvc repro prepare`"
    )


def _check_intensities(folder: Path, trained: dict[str, Any], data: Prepared) -> None:
    """Raise InputError unless images are normalized as in the model's training, as far as both record it."""
    window = None if data.window is None else list(data.window)
    for what, found, allowed in (
        ("data.intensity", data.intensity, trained.get("intensity")),
        ("data.window", window, trained.get("window")),
    ):
        if None not in (found, allowed) and found != allowed:
            raise InputError(
                f"{data.folder}: {what}: found {found}, allowed: {allowed}, as the model in {folder} was trained; "
                "set it and run `dvc repro prepare`"
            )


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
