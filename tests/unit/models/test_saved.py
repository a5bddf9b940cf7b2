"""A trained model on disk: it holds nothing of a frozen LLM, and takes back only the layer that it was trained with."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from llm4seg.config import Config
from llm4seg.data.intensity import Foreground, Intensity
from llm4seg.data.prepared import Prepared
from llm4seg.llm.store import LayerStore, tensors_sha256
from llm4seg.models.check_data import check_data
from llm4seg.models.saved import load_trained, save_trained
from llm4seg.training.trainer import assemble
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import read_json, sha256_file, write_json


@pytest.fixture
def trained(config: Config, tmp_path: Path) -> Config:
    """A config whose `paths.model` holds a model as `train` leaves it, and `paths.llm_used` a store of its own."""
    store = shutil.copytree(config.paths.llm_used, tmp_path / "llm_used")
    config = config.override({"model.llm.norm": True, "paths.llm_used": str(store)})
    return saved(config)


def saved(config: Config) -> Config:
    """Leave the untrained model of a config as `train` leaves a trained one."""
    data, weights = Prepared(config.paths.prepared), config.paths.model.with_name("weights.safetensors")
    save_file(assemble(config, data).trainable_state_dict(), weights)
    save_trained(config.paths.model, weights, config, data, "torch")
    return config


def change(file: Path) -> dict[str, torch.Tensor]:
    """Another layer of the same shape in a store's file; returns its tensors."""
    tensors = {name: tensor + 1 for name, tensor in load_file(file).items()}
    save_file(tensors, file)
    return tensors


def change_json(file: Path, dotted: list[str], value: Any) -> None:
    content = json.loads(file.read_text())
    section = content
    for name in dotted[:-1]:
        section = section[name]
    section[dotted[-1]] = value
    file.write_text(json.dumps(content))


def test_model_json_says_which_engine_ran_and_need_not(trained: Config) -> None:
    file = trained.paths.model / "model.json"
    description = json.loads(file.read_text())
    assert (description["config"]["engine"]["name"], description.pop("engine")) == ("auto", "torch")
    file.write_text(json.dumps(description))  # as earlier versions wrote it
    assert not load_trained(trained.paths.model, trained.paths.llm_used).training


def test_the_weights_hold_no_tensor_of_the_frozen_llm(trained: Config) -> None:
    store = LayerStore(trained.paths.llm_used)
    frozen = [*store.load(1).values(), *store.load_norm().values()]
    weights = load_file(trained.paths.model / "weights.safetensors")
    assert not any(one.shape == other.shape and torch.equal(one, other) for one in frozen for other in weights.values())
    assert not [name for name in weights if "layers.1" in name or "q_proj" in name]
    assert sum(tensor.nbytes for tensor in weights.values()) < sum(tensor.nbytes for tensor in frozen)


def test_the_layer_comes_back_from_the_store(trained: Config) -> None:
    model = load_trained(trained.paths.model, trained.paths.llm_used)
    found = {name: tensor for name, tensor in model.state_dict().items() if "q_proj.weight" in name}
    assert len(found) == 1
    expected = LayerStore(trained.paths.llm_used).load(1)["self_attn.q_proj.weight"]
    assert torch.equal(next(iter(found.values())), expected)


@pytest.mark.parametrize(("file", "name"), [("layer_1.safetensors", "layer_1"), ("norm.safetensors", "norm")])
def test_a_changed_file_is_refused_by_name(trained: Config, file: str, name: str) -> None:
    change(trained.paths.llm_used / file)
    with pytest.raises(
        InputError, match=rf"{name}\.safetensors: found sha256 .*config\.json says .*dvc repro fetch_llm"
    ):
        load_trained(trained.paths.model, trained.paths.llm_used)


@pytest.mark.parametrize(
    ("file", "entry", "what"),
    [("layer_1.safetensors", ["layers", "1"], "layer 1"), ("norm.safetensors", ["norm"], "the final norm")],
)
def test_another_layer_is_refused_by_name(trained: Config, file: str, entry: list[str], what: str) -> None:
    """One that the store vouches for: the same number and shape, of another LLM."""
    sha256 = tensors_sha256(change(trained.paths.llm_used / file))
    change_json(trained.paths.llm_used / "config.json", entry, sha256)
    change_json(trained.paths.llm_used / "config.json", ["source"], "another-llm")
    message = (
        rf"model\.json: trained with {what} of llama, sha256 \w{{12}}; .* has sha256 {sha256[:12]} \(from another-llm"
    )
    with pytest.raises(InputError, match=message):
        load_trained(trained.paths.model, trained.paths.llm_used)


def test_a_store_without_the_layer_is_refused_by_name(trained: Config) -> None:
    change_json(trained.paths.llm_used / "config.json", ["layers"], {"0": "0" * 64})
    with pytest.raises(
        InputError, match=r"model\.llm\.layer: found 1, allowed: 0 \(in .*\); run `dvc repro fetch_llm`"
    ):
        load_trained(trained.paths.model, trained.paths.llm_used)


def test_a_store_without_the_norm_is_refused_by_name(trained: Config) -> None:
    change_json(trained.paths.llm_used / "config.json", ["norm"], None)
    with pytest.raises(InputError, match=r"trained with the final norm of llama, sha256 \w+; .* has sha256 none"):
        load_trained(trained.paths.model, trained.paths.llm_used)


FIRST = {"training.seed": 9}
ALIKE: dict[str, Any] = {"training.seed": 5}
DRAWN = {"model.llm.weights": "random"}
TRAINED = {"model.llm.training": "full"}
LORA = {"model.llm.training": "lora"}


def begun(there: Config, changes: dict[str, Any]) -> tuple[set[str], str]:
    """Which parts of a model that begins from another one come from there, and what is said of it."""
    config, data = there.override(changes), Prepared(there.paths.prepared)
    plain, lines = assemble(config, data).trainable_state_dict(), list[str]()
    config = config.override({"training.init_from": str(there.paths.model)})
    weights, theirs = (
        assemble(config, data, lines.append).trainable_state_dict(),
        load_file(there.paths.model / "weights.safetensors"),
    )
    taken = {name for name, tensor in weights.items() if not torch.equal(tensor, plain[name])}
    assert all(torch.equal(weights[name], theirs[name]) for name in taken)
    return {".".join(name.split(".")[:2]) for name in taken if name.startswith("bottleneck.")}, lines[0]


@pytest.mark.parametrize(
    ("first", "then", "taken"),
    [
        ({}, ALIKE, {"bottleneck.adapter_in", "bottleneck.adapter_out"}),
        (TRAINED | DRAWN, ALIKE, {"bottleneck.adapter_in", "bottleneck.adapter_out", "bottleneck.core"}),
        (LORA, ALIKE, {"bottleneck.adapter_in", "bottleneck.adapter_out", "bottleneck.core"}),
    ],
)
def test_the_same_bottleneck_is_begun_from(
    config: Config, first: dict[str, Any], then: dict[str, Any], taken: set[str]
) -> None:
    parts, line = begun(saved(config.override(FIRST | first)), then)
    assert parts == taken
    assert line.endswith("new ones: none")


@pytest.mark.parametrize(
    ("first", "then", "why"),
    [
        (TRAINED, ALIKE | {"model.llm.layer": 0}, r"model\.llm\.layer was \[1\]"),
        (TRAINED, ALIKE | DRAWN, r"model\.llm\.weights was pretrained"),
        (LORA, ALIKE | TRAINED, r"model\.llm\.training was lora"),
        ({}, ALIKE | {"model.bottleneck": "mlp"}, r"model\.bottleneck was llm"),
        (DRAWN, ALIKE, r"its LLM layers were others"),
    ],
)
def test_of_another_bottleneck_nothing_is_taken(
    config: Config, first: dict[str, Any], then: dict[str, Any], why: str
) -> None:
    """A control that begins from an LLM's trained layer would be none."""
    parts, line = begun(saved(config.override(FIRST | first)), then)
    assert parts == set()
    assert re.search(rf"^training\.init_from: took \d+ tensors of .*; new ones: the bottleneck, since {why}", line)


def test_of_another_llm_nothing_is_taken(config: Config) -> None:
    there = saved(config.override(FIRST))
    change_json(there.paths.model / "model.json", ["llm", "layers"], [{"layer": 1, "sha256": "0" * 64}])
    assert begun(there, ALIKE)[0] == set()


@pytest.mark.parametrize("changes", [DRAWN, {"model.llm.weights": "shuffled", "model.llm.norm": True}, DRAWN | LORA])
def test_what_is_drawn_again_must_be_what_was_trained_with(config: Config, changes: dict[str, Any]) -> None:
    """The weights do not hold it, and another transformers may draw other numbers from the same seed."""
    trained = saved(config.override(changes))
    assert load_trained(trained.paths.model, trained.paths.llm_used)
    file = trained.paths.model / "model.json"
    description = read_json(file)
    assert list(description["drawn_sha256"]) == ["layer 1", "the final norm"][: 1 + trained.model.llm.norm]
    change_json(file, ["drawn_sha256", "layer 1"], "0" * 64)
    message = r"model\.json: trained with layer 1 drawn at random, sha256 0{12}; here the same seed .*transformers \d"
    with pytest.raises(InputError, match=message):
        load_trained(trained.paths.model, trained.paths.llm_used)
    del description["drawn_sha256"]  # as earlier versions left it
    write_json(file, description)
    assert load_trained(trained.paths.model, trained.paths.llm_used)


def test_images_normalized_otherwise_are_refused(trained: Config, tmp_path: Path) -> None:
    data, file = Prepared(trained.paths.prepared), trained.paths.model / "model.json"
    check_data(trained.paths.model, data)
    change_json(file, ["data", "intensity"], "released")
    with pytest.raises(InputError, match=r"data\.intensity: found zscore, allowed: released, as the model in "):
        check_data(trained.paths.model, data)
    data.intensity, data.window = "window", (-1000, 400)
    change_json(file, ["data", "intensity"], "window")
    change_json(file, ["data", "window"], [-160, 240])
    with pytest.raises(InputError, match=r"data\.window: found \[-1000, 400\], allowed: \[-160, 240\]"):
        check_data(trained.paths.model, data)
    description = read_json(file)
    del description["data"]["intensity"], description["data"]["window"]  # as earlier versions left it
    write_json(file, description)
    check_data(trained.paths.model, data)


@pytest.mark.parametrize("classes", [["lesion 2", "lesion 1"], ["lesion 1", "cyst"], ["lesion 1"]])
def test_data_of_other_classes_are_refused(trained: Config, classes: list[str]) -> None:
    data, file = Prepared(trained.paths.prepared), trained.paths.model / "model.json"
    assert data.classes == ("lesion 1", "lesion 2")
    change_json(file, ["data", "classes"], classes)
    message = rf"found the classes lesion 1, lesion 2, allowed: {', '.join(classes)}, in this order, as the model in "
    with pytest.raises(InputError, match=message):
        check_data(trained.paths.model, data)


def test_data_without_the_models_regions_are_refused(trained: Config) -> None:
    data, file = Prepared(trained.paths.prepared), trained.paths.model / "model.json"
    change_json(file, ["data", "regions"], [[1, 2], [2]])
    change_json(file, ["data", "regions_class_order"], [1, 2])
    message = r"found classes that cover the labels one each, allowed: \[\(1, 2\), \(2,\)\], as the model in"
    with pytest.raises(InputError, match=message):
        check_data(trained.paths.model, data)
    config = trained.override({"training.init_from": str(trained.paths.model)})
    with pytest.raises(InputError, match=r"with the regions lesion 1, lesion 2, but these data have the classes "):
        assemble(config, data)


def test_a_converted_model_has_classes_without_names(trained: Config) -> None:
    data, file = Prepared(trained.paths.prepared), trained.paths.model / "model.json"
    change_json(file, ["data", "classes"], [None, None])
    check_data(trained.paths.model, data)
    change_json(file, ["data", "classes"], [None, None, None])
    with pytest.raises(InputError, match=r"found the classes lesion 1, lesion 2, allowed: 3, as the model in "):
        check_data(trained.paths.model, data)


def test_the_head_to_begin_from_is_of_the_same_classes_or_says_so(trained: Config) -> None:
    """The same name at another place is another logit; wholly other names are a transfer."""
    file = trained.paths.model / "model.json"
    assert "of the classes" not in begun(trained, ALIKE)[1]
    change_json(file, ["data", "classes"], ["lesion 1", "cyst"])
    assert "(of the classes lesion 1, cyst); new ones: none" in begun(trained, ALIKE)[1]
    change_json(file, ["data", "classes"], ["lesion 2", "lesion 1"])
    message = r"^training\.init_from: found .* classes lesion 2, lesion 1, but these data have lesion 1, lesion 2"
    with pytest.raises(InputError, match=message):
        begun(trained, ALIKE)


def remarks(trained: Config, data: Prepared) -> list[str]:
    """What is said of a model to begin from, after what was taken."""
    lines: list[str] = []
    assemble(trained.override({"training.init_from": str(trained.paths.model)}), data, lines.append)
    return lines[1:]


def test_images_that_look_otherwise_to_a_begun_model_are_said(trained: Config) -> None:
    data, file = Prepared(trained.paths.prepared), trained.paths.model / "model.json"
    assert remarks(trained, data) == []
    change_json(file, ["data", "intensity"], "window")
    change_json(file, ["data", "window"], [-175.0, 250.0])
    (line,) = remarks(trained, data)
    assert line == "training.init_from: its intensities were window [-175.0, 250.0]; here they are zscore"
    change_json(file, ["data", "intensity"], None)  # as an earlier version left it
    assert remarks(trained, data) == []


def test_statistics_and_spacing_of_a_begun_model_are_said_where_they_differ(trained: Config) -> None:
    data, file = Prepared(trained.paths.prepared), trained.paths.model / "model.json"
    data.spacing, data.normalization = (1.0, 1.0, 2.0), Intensity("ct", foreground=(Foreground(-80, 240, 60.5, 45),))
    data.intensity = "ct"
    before = Intensity("ct", foreground=(Foreground(-100.5, 200, 50, 40.25),)).plain()
    for name, value in (("intensity", "ct"), ("normalization", before), ("spacing", [1.09, 1.0, 1.85])):
        change_json(file, ["data", name], value)
    (line,) = remarks(trained, data)
    assert line == (
        "training.init_from: its intensities were ct (clip -100.5 to 200, mean 50, std 40.25); here they are ct "
        "(clip -80 to 240, mean 60.5, std 45)"
    )
    change_json(file, ["data", "spacing"], [1.0, 1.0, 1.8])
    line = remarks(trained, data)[1]
    assert line.startswith(
        "warning: training.init_from: its volumes were at [1.0, 1.0, 1.8] mm (rows, columns, slices)"
    )
    data.normalization = Intensity.parse(before)
    assert remarks(trained, data) == [line]


def test_the_model_to_begin_from_is_the_one_that_was_meant(trained: Config) -> None:
    """DVC does not look into that folder."""
    data, begin = Prepared(trained.paths.prepared), {"training.init_from": str(trained.paths.model)}
    there = sha256_file(trained.paths.model / "weights.safetensors")
    assemble(trained.override(begin | {"training.init_sha256": there}), data)
    with pytest.raises(InputError, match=rf"training\.init_sha256: found 0{{64}}, but that of .* is {there}"):
        assemble(trained.override(begin | {"training.init_sha256": "0" * 64}), data)
