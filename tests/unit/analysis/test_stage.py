"""The stage `analyze` on prepared data and trained models on disk."""

import logging
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from llm4seg.analysis import results
from llm4seg.analysis.measures import CLASS_COLUMNS, TOKEN_COLUMNS
from llm4seg.config import Config
from llm4seg.data.split import read_split
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import read_json, write_json
from pipelines.analyze import analyze
from tests.lesion_volumes import prepare_lesions
from tests.saved_model import save_random_model

ON = {"analysis.enabled": True, "analysis.shifts": 10, "evaluation.bootstrap": 100}
PLACES = ["encoder", "adapter_in", "layer.1.attention", "layer.1.mlp", "llm", "decoder_input"]


@pytest.fixture
def trained(config: Config) -> Config:
    save_random_model(config)
    return config.override(ON)


def content(config: Config) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(config.paths.analysis.iterdir())}


def test_off_it_leaves_tables_without_rows(config: Config) -> None:
    """Also without a model."""
    analyze(config)
    assert set(content(config)) == {"analysis.json", "analysis.csv", "tokens.csv"}
    for name, columns in (("analysis.csv", CLASS_COLUMNS), ("tokens.csv", TOKEN_COLUMNS)):
        table = pd.read_csv(config.paths.analysis / name)
        assert (tuple(table), len(table)) == (columns, 0)
    assert results.read(config.paths.analysis) is None


def test_on_it_measures_the_trained_model(trained: Config, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        analyze(trained)
    result = results.read(trained.paths.analysis)
    assert result is not None
    assert result.summary["places"] == PLACES == list(result.tokens["place"].unique())
    cases = read_split(trained.paths.split).test
    assert list(result.classes["case"].unique()) == list(cases)
    assert set(result.summary["differences"]) == {"decoder_input - encoder", "llm - adapter_in"}
    attended = result.tokens.query("place == 'layer.1.attention'")["attention_entropy"]
    assert attended.between(0, 4.2).all()  # ln 64 tokens
    assert result.tokens.query("place == 'decoder_input'")["change"].gt(0).all()
    assert result.summary["dataset"]["encoder"]["cka_tokens"] == pytest.approx(1)
    for line in result.summary["verdicts"]:
        assert f"analyze: {line}" in caplog.messages


def test_interrupted_it_leaves_what_was_there_and_run_again_gives_equal_bytes(
    trained: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    analyze(trained)
    before = content(trained)
    assert set(before) == {"analysis.json", "analysis.csv", "tokens.csv", "examples.safetensors"}

    def stop(path: Path, value: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(results, "write_json", stop)
        with pytest.raises(KeyboardInterrupt):
            analyze(trained)
    assert content(trained) == before
    assert [path.name for path in trained.paths.analysis.parent.glob(".*.partial")] == []
    analyze(trained)
    assert content(trained) == before


@pytest.mark.parametrize("bottleneck", ["identity", "mlp"])
def test_networks_without_an_llm(config: Config, bottleneck: str) -> None:
    config = config.override(ON | {"model.bottleneck": bottleneck})
    save_random_model(config)
    analyze(config)
    places = read_json(config.paths.analysis / "analysis.json")["places"]
    assert places == {"identity": ["encoder"], "mlp": ["encoder", "adapter_in", "decoder_input"]}[bottleneck]


def test_volumes_are_measured_patch_by_patch(tmp_path: Path) -> None:
    config = prepare_lesions(tmp_path, ON | {"analysis.probe_cases": 4, "analysis.field_cases": 1})
    save_random_model(config)
    analyze(config)
    result = results.read(config.paths.analysis)
    assert result is not None
    assert result.summary["in_patches"]
    assert result.tokens["tokens"].eq(4 * 4 * 2).all()
    rows = result.classes.query("`class` == 'any' and place == 'encoder'")
    assert len(rows) == len(read_split(config.paths.split).test)
    assert rows["auroc"].between(0, 1).all()
    assert result.examples["best/mask"].any()
    assert result.examples["best/encoder"].shape == (4, 4)


def test_a_model_of_other_classes_is_refused(trained: Config) -> None:
    path = trained.paths.model / "model.json"
    description = read_json(path)
    description["data"]["classes"] = ["tumor", "cyst"]
    write_json(path, description)
    with pytest.raises(InputError, match=r"found the classes .*, allowed: tumor, cyst, in this order"):
        analyze(trained)
    assert not trained.paths.analysis.exists()


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("part", "train", r"analysis\.part: found 'train'; input should be 'test' or 'val'"),
        ("shifts", 0, r"analysis\.shifts: found 0; input should be greater than 0"),
        ("classes", [], r"analysis\.classes: found \[\]; tuple should have at least 1 item"),
        ("classes", ["a", "a"], r"analysis: classes: found \['a', 'a'\], allowed: each once"),
        ("activation", "energy", r"analysis\.activation: found 'energy'; input should be 'magnitude', 'norm' or"),
    ],
)
def test_values_that_are_not_allowed_are_refused(config: Config, name: str, value: Any, found: str) -> None:
    with pytest.raises(InputError, match=found):
        config.override({f"analysis.{name}": value})


def test_a_broken_output_names_the_file(trained: Config) -> None:
    analyze(trained)
    (trained.paths.analysis / "examples.safetensors").write_bytes(b"no tensors")
    with pytest.raises(InputError, match=r"examples\.safetensors: cannot be read: .*; run `dvc repro analyze`"):
        results.read(trained.paths.analysis)
