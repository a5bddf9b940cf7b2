"""Presets as options for `dvc exp run`, and that DVC reads back what a value is written as."""

import json
from pathlib import Path

import pytest
import yaml

from llm4seg.config import Config
from llm4seg.config.schema import Model
from pipelines.preset import main as print_presets
from tests.import_graph import ROOT

PARAMS = ROOT / "params.yaml"
VALUES = yaml.safe_load(PARAMS.read_text())


@pytest.fixture(scope="module")
def config() -> Config:
    return Config.load(PARAMS)


def test_presets_are_printed_as_words_that_dvc_reads(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["preset", "--params", str(PARAMS), *config.presets])
    print_presets()
    lines, misread = capsys.readouterr().out.splitlines(), []
    for name, line in zip(config.presets, lines, strict=True):
        words = line.split()
        if set(words[::2]) != {"-S"} or with_options(tmp_path, words[1::2]).model != config.preset(name).model:
            misread.append(line)
    assert misread == []


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
