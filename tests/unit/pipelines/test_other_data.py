"""The command that prepares a second data set: where it writes, what it refuses, and that the first one stays."""

import json
from pathlib import Path

import pytest

from llm4seg.config import Config
from llm4seg.data.prepared import Prepared
from llm4seg.utils.errors import InputError
from pipelines.other_data import main, other_data, value_of
from pipelines.prepare import prepare
from tests.layouts import write_cvc
from tests.lesion_volumes import VOLUMES, lesion_config
from tests.params import load, values

OWN = {"data.size": [32, 32], "data.intensity": "unit", "split.rule": "file", "split.file": "own.txt"}


@pytest.fixture
def params(tmp_path: Path) -> Path:
    """A project whose own data are split by a list, and a miniature of CVC-ClinicDB in it."""
    load(tmp_path, values(OWN))
    write_cvc(tmp_path / "data" / "raw" / "cvc-clinicdb", last=40)
    return tmp_path / "params.yaml"


def test_presets_and_values_name_the_data_and_the_rest_is_as_for_the_own(
    params: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(params.parent)
    words = ["data/other", "cvc-clinicdb", "-S", "data.classes={lesion: [polyp]}"]
    monkeypatch.setattr("sys.argv", ["other_data", *words])
    main()
    prepared = Prepared(Path("data/other"))
    assert (prepared.name, prepared.classes) == ("cvc-clinicdb", ("lesion",))
    assert (prepared.size, prepared.intensity) == ((32, 32), "unit")
    assert {*prepared.cases} == {"20", "25", "30", "35", "40"}
    assert sorted(path.name for path in Path("data").iterdir()) == ["other", "other.png", "raw"]
    assert not Path("outputs").exists()
    assert capsys.readouterr().out.endswith("-S study.other_data=data/other; to version it: dvc add data/other\n")


def test_a_folder_of_anything_else_is_left_alone(params: Path) -> None:
    root = params.parent
    for folder in (root, root / "data" / "raw", params):
        with pytest.raises(InputError, match=r"holds no prepared data, allowed: a new folder, or what this command"):
            other_data(params, folder, ["cvc-clinicdb"], {})
    with pytest.raises(InputError, match=r"is paths.prepared, allowed: another folder"):
        other_data(params, root / "data" / "x" / ".." / "prepared", ["cvc-clinicdb"], {})
    other_data(params, root / "data" / "other", ["cvc-clinicdb"], {})
    other_data(params, root / "data" / "other", ["cvc-clinicdb"], {"data.size": [16, 16]})
    assert Prepared(root / "data" / "other").size == (16, 16)


def test_an_automatic_spacing_is_that_of_the_own_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Or the study refuses, after hours of training: the other volumes' own median is another."""
    config = lesion_config(tmp_path, {"data.spacing": [1.25, 1.5, 2.0]}, cases=3)
    params, folder = tmp_path / "params.yaml", tmp_path / "other"
    params.write_text(json.dumps(config.plain()))
    auto = {"data.spacing": "auto"}
    line = r"data.spacing: found auto, allowed: that of the study's own data, but .*prepared is not there yet: run `dvc"
    with pytest.raises(InputError, match=line):
        other_data(params, folder, [], auto)
    prepare(config)
    other_data(params, folder, [], auto)
    assert Prepared(folder).spacing == Prepared(config.paths.prepared).spacing == (1.5, 1.25, 2.0)
    assert "data.spacing: auto is [1.25, 1.5, 2.0] mm, as of raw in " in capsys.readouterr().out
    other_data(params, folder, [], {"data.spacing": [2, 2, 2]})
    assert "warning: data.spacing is [2.0, 2.0, 2.0], of raw in " in capsys.readouterr().err
    assert Prepared(folder).spacing == (2, 2, 2)


def test_an_automatic_spacing_needs_own_volumes_at_one(config: Config, tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    changes = VOLUMES | {"data.dataset": "phantom", "data.classes": None}
    params.write_text(json.dumps(config.override(changes).plain()))
    with pytest.raises(InputError, match=r"but .*prepared holds phantom without a spacing: run `dvc repro prepare`"):
        other_data(params, tmp_path / "other", [], {"data.spacing": "auto"})


def test_values_are_those_of_yaml() -> None:
    assert value_of("data.size=[64, 64]") == ("data.size", [64, 64])
    assert value_of("data.root=s=t") == ("data.root", "s=t")
    assert value_of("data.classes=") == ("data.classes", None)
    with pytest.raises(InputError, match=r"-S: found data.size, allowed: NAME=VALUE"):
        value_of("data.size")
    with pytest.raises(InputError, match=r"-S data.size=\[64: not valid YAML"):
        value_of("data.size=[64")


def test_a_mistake_is_one_line(params: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(params.parent)
    for words, message in (
        (["data/other", "busi"], r"data/raw/busi: no such file or folder \(data.root\); busi is at https"),
        (["data/other", "bussi"], "presets: found 'bussi', allowed: "),
        (["data/other", "-S", "data.rot=x"], "data.rot: no such parameter; did you mean data.root"),
    ):
        monkeypatch.setattr("sys.argv", ["other_data", *words])
        with pytest.raises(SystemExit, match=rf"^other_data: .*{message}"):
            main()
    assert not Path("data/other").exists()
