"""Presets as options for `dvc exp run`, and that DVC reads back what a value is written as."""

from pathlib import Path

import pytest
import yaml

from llm4seg.config import Config
from llm4seg.config.schema import Model
from pipelines.preset import main as print_presets
from tests.import_graph import ROOT

PARAMS = ROOT / "params.yaml"


@pytest.mark.parametrize("name", yaml.safe_load(PARAMS.read_text())["presets"])
def test_a_preset_is_printed_as_words_that_dvc_reads(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["preset", "--params", str(PARAMS), name])
    print_presets()
    words = capsys.readouterr().out.split()
    assert set(words[::2]) == {"-S"}
    assert with_options(tmp_path, words[1::2]).plain()["model"] == Config.load(PARAMS).preset(name).plain()["model"]


def test_a_preset_that_there_is_not_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["preset", "--params", str(PARAMS), "frozen", "forzen"])
    with pytest.raises(SystemExit, match=r"^preset: presets: found 'forzen', allowed: "):
        print_presets()
    assert not capsys.readouterr().out


@pytest.mark.parametrize("backbone", Model.sections())
def test_dvc_takes_every_backbones_name(backbone: str, tmp_path: Path) -> None:
    assert with_options(tmp_path, [f"model.backbone={backbone}"]).model.backbone == backbone


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
    """The project's params.yaml as `dvc exp run -S ...` would change it."""
    from dvc.utils.hydra import apply_overrides

    path = folder / "params.yaml"
    path.write_text(PARAMS.read_text())
    apply_overrides(path, options)
    return Config.load(path)
