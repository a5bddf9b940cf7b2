"""A trained model on disk: it holds nothing of a frozen LLM, and takes back only the layer that it was trained with."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from llm4seg.config import Config
from llm4seg.data.prepared import Prepared
from llm4seg.errors import InputError
from llm4seg.llm.store import LayerStore, tensors_sha256
from llm4seg.train import assemble
from llm4seg.trained import load_trained, save_trained


@pytest.fixture
def trained(config: Config, tmp_path: Path) -> Config:
    """A config whose `paths.model` holds a model as `train` leaves it, and `paths.llm_used` a store of its own."""
    store = shutil.copytree(config.paths.llm_used, tmp_path / "llm_used")
    config = config.override({"model.llm.norm": True, "paths.llm_used": str(store)})
    data = Prepared(config.paths.prepared)
    save_file(assemble(config, data).weights(), tmp_path / "weights.safetensors")
    save_trained(config.paths.model, tmp_path / "weights.safetensors", config, data)
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
