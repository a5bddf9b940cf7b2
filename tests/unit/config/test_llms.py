"""Several LLMs in one config: their names, and which layers of which LLM are needed."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from llm4seg.config import Config
from llm4seg.config.changes import _reason
from llm4seg.config.earlier import current_sections
from llm4seg.utils.errors import InputError
from tests.import_graph import ROOT

QWEN = {"llm.sources": {"qwen": "models/qwen", "tiny": {"source": "hf://a/tiny", "layers": [2]}}}
SOURCE, LAYER = "model.llm.source", "model.llm.layer"


@pytest.fixture(scope="module")
def config() -> Config:
    return Config.load(ROOT / "params.yaml").override({**QWEN, "search.trials": 0, "study.repeats": 0})


def test_an_address_alone_is_the_source_of_another_llm(config: Config) -> None:
    full: dict[str, Any] = {"source": "models/qwen", "sha256": None, "layer_sha256": {}, "layers": []}
    full["whole_files"] = False
    assert config.llm.sources["qwen"].model_dump(mode="json") == full
    assert config.override({"llm.sources": {"qwen": full}}).llm.sources["qwen"] == config.llm.sources["qwen"]
    assert list(config.llm.named) == ["default", "qwen", "tiny"]
    assert config.llm.named["default"].source == config.llm.source


def test_paths_are_those_of_the_file_and_addresses_stay(config: Config, tmp_path: Path) -> None:
    sources = config.resolved(tmp_path).llm.sources
    assert (sources["qwen"].source, sources["tiny"].source) == (str(tmp_path / "models/qwen"), "hf://a/tiny")
    assert sources["tiny"].layers == (2,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({SOURCE: "qwem"}, r"model\.llm\.source: found qwem, allowed: default, qwen, tiny \(llm\.sources has"),
        ({"llm.sources": {"default": "a"}}, r"llm\.sources: .*the name default is that of llm\.source; allowed: other"),
        ({"llm.sources": {"a.b": "a"}}, r"llm\.sources\.a\.b.*: found 'a\.b'; string should match pattern"),
        ({"llm.sources": {"qwen": {"layers": [1]}}}, r"llm\.sources\.qwen\.source is missing"),
        ({"llm.sources": {"qwen": {"source": "a", "layer": 1}}}, r"llm\.sources\.qwen\.layer: unknown parameter"),
        ({"llm.sources": {"qwen": 3}}, r"llm\.sources\.qwen: found 3"),
        (
            {"search.space": {SOURCE: ["default", "none"]}},
            r"model\.llm\.source: found none, allowed: default, qwen, tiny",
        ),
        ({"study.repeats": 1, "study.arms": {"cnn": {SOURCE: "x"}}, "study.references": ["cnn"]}, "found x, allowed"),
    ],
)
def test_mistakes_name_the_parameter(config: Config, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        loaded(config, changes, tmp_path / "params.yaml")


def loaded(config: Config, changes: dict[str, Any], path: Path) -> Config:
    path.write_text(yaml.safe_dump(config.override(changes).plain()))
    return Config.load(path)


def test_the_models_llm_is_needed_and_what_is_kept_of_others(config: Config) -> None:
    assert config.layers_used() == {"default": [14]}
    assert config.layers_needed() == {"default": [14], "tiny": [2]}
    chosen = config.override({SOURCE: "qwen", LAYER: "3-4"})
    assert chosen.layers_used() == {"qwen": [3, 4]}
    assert chosen.override({"llm.layers": [0]}).layers_needed() == {"qwen": [3, 4], "default": [0], "tiny": [2]}


ARMS = {
    "cnn": {"preset": "none", SOURCE: "tiny"},  # needs none
    "qwen": {"preset": "frozen", SOURCE: "qwen", LAYER: [5, 1]},
    "random": {"preset": "random", SOURCE: "qwen"},
    "mlp": {"preset": "mlp", SOURCE: "tiny"},  # of its width
}


def test_arms_need_the_layers_of_their_own_llm(config: Config) -> None:
    study = {"study.arms": ARMS, "study.references": ["cnn"], "study.repeats": 1}
    expected = {"default": [14], "qwen": [1, 5, 14], "tiny": []}
    assert config.override(study).layers_used() == expected
    alone = config.override(study | {"model.bottleneck": "identity"})  # which stage fetch_llm does not read
    assert alone.layers_used() == expected
    assert config.override(study | {"study.only": ["cnn", "model"]}).layers_used() == {"default": [14]}


def test_a_preset_chooses_an_llm_and_its_layer(config: Config) -> None:
    changed = config.override({"presets": {**config.presets, "late": {SOURCE: "qwen", LAYER: 9}}})
    assert (changed.preset("late").model.llm.source, changed.preset("late").model.llm.layer) == ("qwen", (9,))
    arms = {"study.arms": {"cnn": {"preset": "none"}, "late": {"preset": "late"}}, "study.references": ["cnn"]}
    assert changed.override({**arms, "study.repeats": 1}).layers_used() == {"default": [14], "qwen": [9]}


def test_arms_begin_with_what_the_search_found(config: Config) -> None:
    """So one without an LLM or a layer of its own may have any that a point chooses."""
    space = {SOURCE: ["default", "qwen"], LAYER: {"choice": [3], "when": {SOURCE: "default"}}}
    arms = {"cnn": {"preset": "none"}, "deep": {LAYER: 20}, "tiny": {SOURCE: "tiny", "preset": "frozen"}}
    changes = {"search.space": space, "search.trials": 1, "study.arms": arms, "study.references": ["cnn"]}
    both = config.override({**changes, "study.repeats": 1})
    assert both.layers_used() == {"default": [3, 14, 20], "qwen": [14, 20], "tiny": [3, 14]}


def test_an_arm_that_sets_the_whole_section(config: Config) -> None:
    block = config.plain()["model"]["llm"] | {"source": "qwen", "layer": [2]}
    arms = {"study.arms": {"a": {"model.llm": block}}, "study.references": ["a"], "study.repeats": 1}
    assert config.override(arms).layers_used() == {"default": [14], "qwen": [2]}


@pytest.mark.parametrize(
    ("space", "used"),
    [
        ({SOURCE: ["default", "qwen"]}, {"default": [14], "qwen": [14]}),
        ({SOURCE: ["default", "qwen"], LAYER: [3, "4-5"]}, {"default": [3, 4, 5, 14], "qwen": [3, 4, 5]}),
        ({SOURCE: ["qwen"], LAYER: {"randint": [0, 2]}}, {"default": [14], "qwen": [0, 1, 2]}),
        # with a condition the other LLM has the model's own layer
        (
            {SOURCE: ["default", "qwen"], LAYER: {"choice": [3], "when": {SOURCE: "qwen"}}},
            {"default": [14], "qwen": [3]},
        ),
        (
            {
                "model.bottleneck": ["identity", "mlp"],
                SOURCE: {"choice": ["qwen"], "when": {"model.bottleneck": "mlp"}},
            },
            {"default": [14], "qwen": []},
        ),
        # numbers between bounds, on which nothing depends, and on which the layer does
        ({"optimizer.lr": {"uniform": [0.1, 0.2]}, SOURCE: ["qwen"]}, {"default": [14], "qwen": [14]}),
        (
            {
                "optimizer.lr": {"uniform": [0.1, 0.2]},
                SOURCE: ["default", "qwen"],
                LAYER: {"choice": [1], "when": {"optimizer.lr": 0.15}},
            },
            {"default": [1, 14], "qwen": [1]},
        ),
    ],
)
def test_a_search_needs_the_layers_that_its_points_choose(
    config: Config, space: dict[str, Any], used: dict[str, list[int]]
) -> None:
    assert config.override({"search.space": space}).layers_used() == {"default": [14]}  # off
    assert config.override({"search.space": space, "search.trials": 3}).layers_used() == used


def test_names_of_runs_are_what_they_were_with_one_llm(config: Config) -> None:
    """The digest of a config that chooses no other LLM is that of one without the parameter."""
    sections = ("model", "optimizer", "training", "engine")
    values = {name: config.plain()[name] for name in sections}
    assert values["model"]["llm"].pop("source") == "default"
    text = json.dumps([values, "x"], sort_keys=True)
    assert config.digest(*sections, extra="x") == hashlib.sha256(text.encode()).hexdigest()[:12]
    assert config.override({SOURCE: "qwen"}).digest(*sections) != config.digest(*sections)


def test_sections_of_before_there_were_several_llms(config: Config) -> None:
    plain = config.plain()
    before = {"model": {**plain["model"], "llm": {**plain["model"]["llm"]}}, "llm": {**plain["llm"]}}
    del before["model"]["llm"]["source"], before["llm"]["sources"]
    now = current_sections(before)
    assert (now["model"]["llm"]["source"], now["llm"]["sources"]) == ("default", {})
    with pytest.raises(InputError, match=r"model\.llm\.source is missing; .*: python -m pipelines\.upgrade"):
        Config.parse({**plain, "model": before["model"]})


def test_an_llm_that_is_not_chosen_has_no_effect(config: Config) -> None:
    chosen = config.override({SOURCE: "qwen"})
    assert _reason("llm.source", [chosen]) == "model.llm.source is qwen"
    assert _reason("llm.sources.tiny", [chosen]) == "model.llm.source is qwen"
    assert _reason("llm.sources.qwen.sha256", [chosen]) is None
    assert _reason("llm.sources.qwen", [config, chosen]) is None
