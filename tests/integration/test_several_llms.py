"""A study and a search over two LLMs of different widths, and predictions of their models."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import llm4seg
from llm4seg.cluster.runs import run_name
from llm4seg.config import Config
from llm4seg.data.prepared import Prepared
from llm4seg.llm.store import named_store, tensors_sha256
from llm4seg.models.saved import load_trained, read_metadata
from llm4seg.tools.memory_model import llm_config
from llm4seg.training.trainer import assemble
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import read_json
from pipelines.fetch_llm import fetch_llm
from pipelines.search import search
from pipelines.study import study
from tests.tiny_llm import save_llm, tiny_llm

WIDTH, LAYERS = 64, 3  # of the second LLM; the workspace's own has 48 and 2
SOURCE = "model.llm.source"
ARMS: dict[str, dict[str, Any]] = {
    "cnn": {"preset": "none"},
    "llama": {"preset": "frozen"},
    "qwen": {"preset": "frozen", SOURCE: "qwen", "model.llm.layer": 2},
    "random": {"preset": "random", SOURCE: "qwen", "model.llm.layer": 2},
    "mlp": {"preset": "mlp", SOURCE: "qwen"},
}


@pytest.fixture(scope="module")
def qwen() -> Any:
    return tiny_llm("qwen2", num_hidden_layers=LAYERS)


@pytest.fixture
def both(config: Config, qwen: Any, tmp_path: Path) -> Config:
    """The tiny workspace with a second LLM, of which nothing is fetched yet."""
    source = save_llm(tmp_path / "tiny-qwen", qwen)
    return config.override(
        {
            "llm.sources": {"qwen": str(source)},
            "paths.llm": str(tmp_path / "llm"),
            "paths.llm_used": str(tmp_path / "llm_used"),
            "paths.search": str(tmp_path / "search"),
            "engine.name": "torch",
        }
    )


def studying(config: Config) -> Config:
    return config.override(
        {
            "study.arms": ARMS,
            "study.references": ["cnn"],
            "study.repeats": 1,
            "study.keep": "weights",
            "training.epochs": 1,
            "cluster.launcher": "process",
            "paths.search": str(config.paths.split.parent.parent / "outputs/search"),  # of the workspace: no search
        }
    )


def model_of(config: Config, arm: str) -> Path:
    (folder,) = (config.paths.study / "models" / arm).iterdir()
    return folder


@pytest.mark.usefixtures("group")
def test_a_study_of_two_llms(both: Config, qwen: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = studying(both)
    fetch_llm(config)
    study(config)
    runs = pd.read_csv(config.paths.study / "runs.csv").set_index("arm")
    assert runs["state"].to_dict() == dict.fromkeys(ARMS, "finished")
    described, section = read_metadata(model_of(config, "qwen"))
    expected = tensors_sha256({name: one.detach() for name, one in qwen.layers[2].state_dict().items()})
    assert (described["llm"]["source"], section.llm.source) == ("tiny-qwen", "qwen")
    assert described["llm"]["layers"] == [{"layer": 2, "sha256": expected}]
    assert read_metadata(model_of(config, "llama"))[0]["llm"]["source"] == "llama"
    networks: dict[str, Any] = {arm: load_trained(model_of(config, arm), config.paths.llm_used) for arm in ARMS}
    widths = {arm: networks[arm].bottleneck.adapter_in.out_features for arm in ARMS if arm != "cnn"}
    # between linear adapters, an MLP with as many parameters is as wide as the LLM
    assert widths == {"llama": 48, "qwen": WIDTH, "random": WIDTH, "mlp": WIDTH}
    layer = networks["qwen"].bottleneck.core.layers[0]
    assert torch.equal(layer.self_attn.q_proj.weight, qwen.layers[2].self_attn.q_proj.weight)
    predicts_anywhere(model_of(config, "qwen"), config, tmp_path, monkeypatch)


def predicts_anywhere(model: Path, config: Config, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With layers fetched from the LLM that model.json names, or from a store in which it is called otherwise."""
    monkeypatch.setenv("LLM4SEG_HOME", str(folder / "home"))
    image = np.random.default_rng(0).integers(0, 200, (40, 36)).astype(np.uint8)
    expected = llm4seg.load(model, llm=config.paths.llm_used).predict(image)
    assert not (folder / "home").exists()
    assert np.array_equal(llm4seg.load(model).predict(image), expected)
    (config.paths.llm_used / "qwen").rename(config.paths.llm_used / "another")
    assert np.array_equal(llm4seg.load(model, llm=config.paths.llm_used).predict(image), expected)


def test_a_search_over_llm_and_layer(both: Config, ray_address: str) -> None:
    space = {SOURCE: ["default", "qwen"], "model.llm.layer": [0, 1]}
    config = both.override(
        {
            "cluster.address": ray_address,
            "search.trials": 9,
            "search.epochs": 1,
            "search.asha": None,
            "search.algorithm": "grid",
            "search.space": space,
            "search.objectives": ["val_dice", "parameters"],
        }
    )
    fetch_llm(config)
    search(config)
    trials = pd.read_csv(config.paths.search / "trials.csv")
    assert list(trials["status"]) == ["finished"] * 4
    assert len(trials[[*space]].drop_duplicates()) == 4
    parameters = trials.groupby(SOURCE)["parameters"].first()
    channels = 8  # at the bottleneck of the tiny CNN; two linear adapters with their biases are wider by 16
    assert parameters["qwen"] - parameters["default"] == (WIDTH - 48) * (2 * channels + 1)
    best = read_json(config.paths.search / "best.json")
    assert best == {SOURCE: trials[SOURCE][0], "model.llm.layer": trials["model.llm.layer"][0]}


def test_a_layer_that_one_llm_has_not_is_named_before_anything_trains(both: Config) -> None:
    """The second LLM has a layer 2, and the first has none."""
    space = {SOURCE: ["default", "qwen"], "model.llm.layer": {"randint": [0, 2]}}
    config = both.override({"search.trials": 3, "search.space": space})
    with pytest.raises(InputError, match=r"or llm\.layers: found layer 2, allowed: 0 to 1 \(llama\)$"):
        fetch_llm(config)
    assert not both.paths.llm_used.exists()
    deeper = {SOURCE: ["default", "qwen"], "model.llm.layer": {"choice": [2], "when": {SOURCE: "qwen"}}}
    fetch_llm(config.override({"search.space": deeper}))
    stores = {name: named_store(both.paths.llm_used, name).layers for name in ("default", "qwen")}
    assert stores == {"default": (1,), "qwen": (2,)}


def test_a_run_is_bound_to_the_llm_behind_a_name(both: Config, tmp_path: Path) -> None:
    """Its layers, and of an MLP its width; another LLM under the same name makes another run."""
    names = []
    for width in (64, 32):
        source = save_llm(tmp_path / f"qwen-{width}", tiny_llm("qwen2", hidden_size=width))
        config = both.override({"llm.sources": {"qwen": str(source)}, SOURCE: "qwen"})
        fetch_llm(config)
        names += [run_name(config.override({"model.bottleneck": one})) for one in ("llm", "mlp", "identity")]
    assert len(set(names)) == 5
    assert names[2] == names[5]  # the CNN alone


def test_what_is_not_fetched_is_named(both: Config) -> None:
    fetch_llm(both)
    config = both.override({SOURCE: "qwen"})
    message = (
        r"^model\.llm\.source: found qwen, but there is no layer store .*/llm_used/qwen; run `dvc repro fetch_llm`$"
    )
    for wanted in (config, config.override({"model.bottleneck": "mlp"})):
        with pytest.raises(InputError, match=message):
            assemble(wanted, Prepared(wanted.paths.prepared))
        with pytest.raises(InputError, match=message):
            run_name(wanted)


def test_estimates_are_of_the_chosen_llm(both: Config) -> None:
    """From its store, and before there is one from a source on this machine."""
    chosen = both.override({SOURCE: "qwen"})
    for _ in range(2):
        widths = [(llm_config(one) or {})["hidden_size"] for one in (both, chosen)]
        assert widths == [48, WIDTH]
        fetch_llm(both.override({"search.trials": 1, "search.space": {SOURCE: ["default", "qwen"]}}))
