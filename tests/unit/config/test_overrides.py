"""Checked copies of a config: overrides, presets and the digest that names a computation."""

from pathlib import Path

import pytest

from llm4seg.config import Config
from llm4seg.utils.errors import InputError
from tests.params import PARAMS, load, load_with, values


@pytest.fixture(scope="module")
def config() -> Config:
    return Config.load(PARAMS)


def test_plain_values_and_back(config: Config) -> None:
    assert Config.parse(config.plain()) == config


def test_override_is_a_checked_copy(config: Config) -> None:
    before = config.optimizer.lr, config.model.llm.layer
    changed = config.override({"optimizer.lr": 1e-4, "model.llm.layer": 7})
    assert (changed.optimizer.lr, changed.model.llm.layer) == (1e-4, (7,))
    assert (config.optimizer.lr, config.model.llm.layer) == before != (1e-4, (7,))
    with pytest.raises(InputError, match=r"override: optimizer.lr: found -1"):
        config.override({"optimizer.lr": -1})


@pytest.mark.parametrize("dotted", ["optimizer.lrr", "model.llm.layer.x", "zzz", "optimizer"])
def test_override_of_what_is_not_there(dotted: str, config: Config) -> None:
    with pytest.raises(InputError, match=dotted):
        config.override({dotted: 1})


def test_overrides_that_only_agree_together(config: Config) -> None:
    changed = config.override({"engine.zero": 3, "engine.offload": "cpu"})
    assert changed.engine.offload == "cpu"


def test_nothing_can_be_changed_in_place(config: Config) -> None:
    with pytest.raises(ValueError, match="frozen"):
        config.optimizer.lr = 1.0  # type: ignore[misc]


def test_presets(config: Config) -> None:
    assert config.preset("released").model.llm.attention == "causal"
    assert config.preset("none").model.bottleneck == "identity"
    random = config.preset("random").model.llm
    assert (random.weights, random.training) == ("random", "full")
    with pytest.raises(InputError, match=r"presets: found 'mine', allowed: default, released, corrected, cmunext-s"):
        config.preset("mine")


def test_every_preset_is_good_with_these_values(config: Config) -> None:
    assert all(config.preset(name) for name in config.presets)


def test_a_preset_that_does_not_suit_the_images_matters_only_when_it_is_used(tmp_path: Path) -> None:
    """24 x 24 pixels suit a network of stride 4, and not that of preset cmunext-l."""
    changed = values()
    changed["data"]["size"] = [24, 24]
    changed["model"]["cmunext"] = {"dims": [4, 4, 4], "depths": [1, 1, 1], "kernels": [3, 3, 3]}
    loaded = load(tmp_path, changed)
    with pytest.raises(InputError, match=r"data\.size: found 24, allowed: multiples of 16"):
        loaded.preset("cmunext-l")


def test_a_preset_that_does_not_suit_the_layers_matters_only_when_it_is_used(tmp_path: Path) -> None:
    loaded = load_with(tmp_path, "model.llm.dtype", "bf16")
    assert loaded.model.llm.dtype == "bf16"
    with pytest.raises(InputError, match=r"model.llm: dtype: found bf16, allowed: fp32, since training is full"):
        loaded.preset("trained")


def test_digest_names_a_computation(config: Config) -> None:
    digest = config.digest("model", "training")
    assert digest == Config.load(PARAMS).digest("model", "training")
    assert digest == config.override({"cluster.workers": 2, "optimizer.lr": 0.1}).digest("model", "training")
    assert digest != config.override({"training.seed": 1}).digest("model", "training")
    assert digest != config.digest("model", "training", extra="other data")
