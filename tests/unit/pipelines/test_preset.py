"""Presets as options for `dvc exp run`, and that DVC reads back what a value is written as."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from llm4seg.config import Config
from llm4seg.config.schema import Model
from llm4seg.utils.errors import InputError
from pipelines.preset import differing_defaults, options
from pipelines.preset import main as print_presets
from tests.import_graph import ROOT

PARAMS = ROOT / "params.yaml"
VALUES = yaml.safe_load(PARAMS.read_text())


@pytest.fixture(scope="module")
def config() -> Config:
    return Config.load(PARAMS)


def test_presets_are_printed_as_words_that_dvc_reads(config: Config, tmp_path: Path) -> None:
    misread = []
    for name in config.presets:
        words = options(PARAMS, [name]).split()
        if set(words[::2]) != {"-S"} or with_options(tmp_path, words[1::2]).model != config.preset(name).model:
            misread.append(name)
    assert misread == []


def test_several_presets_are_one_line_in_which_the_later_ones_win(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["preset", "--params", str(PARAMS), "none", "random"])
    print_presets()
    expected = "-S model.bottleneck=llm -S model.llm.weights=random -S model.llm.training=full\n"
    assert capsys.readouterr().out == expected


def test_default_is_what_this_file_has_for_all_that_presets_change(config: Config) -> None:
    assert config.preset("default") == config
    default = set(config.presets["default"])
    of_models = {
        name: set(changes) for name, changes in config.presets.items() if all("model." in one for one in changes)
    }
    assert [name for name, changes in of_models.items() if not changes <= default] == []
    assert {"none", "random", "released", "cmunext-l"} <= set(of_models)


def test_a_row_of_the_papers_table_is_one_command(tmp_path: Path) -> None:
    """Data, recipe, LLM and arm; data and LLM are where its owner has them."""
    for data in ("busi", "tnscui", "isic2018", "kvasir-seg"):
        for llm in ("llama-3.2-1b", "deepseek-r1-qwen-1.5b", "smollm2-135m", "qwen2.5-0.5b"):
            words = options(PARAMS, ["default", data, "recipe-2d", llm, "frozen"]).split()
            config = with_options(tmp_path, words[1::2])
            assert str(config.data.root).endswith(f"data/raw/{data}")
            assert (config.optimizer.name, config.training.epochs, config.split.rule) == ("sgd", 300, "random")
            assert config.data.size == (256, 256)
            assert config.llm.source.startswith("package://" if llm == "smollm2-135m" else "hf://")


def test_a_refused_value_is_no_hindrance_where_a_preset_replaces_it(tmp_path: Path) -> None:
    text = PARAMS.read_text()
    left = tmp_path / "params.yaml"
    left.write_text(text.replace("bottleneck: llm ", "bottleneck: lm "))
    assert options(left, ["default", "none"]) == options(PARAMS, ["default", "none"])
    left.write_text(text.replace("layer: 14 ", "layer: -1 "))
    with pytest.raises(
        InputError, match=r"params.yaml with random corrected: model.llm.layer.0: found -1; .*; if an exp"
    ):
        options(left, ["random", "corrected"])


def test_a_preset_that_there_is_not_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["preset", "--params", str(PARAMS), "frozen", "forzen"])
    with pytest.raises(SystemExit, match=r"^preset: presets: found 'forzen', allowed: "):
        print_presets()
    assert not capsys.readouterr().out


def test_dvc_takes_every_backbones_name(tmp_path: Path) -> None:
    taken = [with_options(tmp_path, [f"model.backbone={name}"]).model.backbone for name in Model.sections()]
    assert taken == [*Model.sections()]


def test_dvc_takes_values_of_earlier_versions(tmp_path: Path) -> None:
    config = with_options(tmp_path, ["training.loss=paper", "model.llm.position=paper"])
    assert (config.training.loss, config.model.llm.position) == ("bce_dice", "released")


def test_a_preset_keeps_its_old_name(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for name in ("paper-exact", "released"):
        monkeypatch.setattr("sys.argv", ["preset", "--params", str(PARAMS), name])
        print_presets()
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] != ""


def with_options(folder: Path, options: list[str]) -> Config:
    """The project's parameters as `dvc exp run -S ...` would change them; JSON, since DVC is quicker with it."""
    from dvc.utils.hydra import apply_overrides

    path = folder / "params.json"
    path.write_text(json.dumps(VALUES))
    apply_overrides(path, options)
    return Config.load(path)


def test_defaults_that_the_last_commit_has_otherwise_are_named(tmp_path: Path) -> None:
    """Or an experiment would undo what somebody chose and committed, without a word."""
    file = tmp_path / "params.yaml"
    file.write_text(PARAMS.read_text().replace("backbone: cmunext ", "backbone: unet "))
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    (line,) = differing_defaults(file)
    assert line == (
        "default sets model.backbone to cmunext, but the last commit has unet: change presets.default with it"
    )
