"""The command that prepares a second data set: where it writes, what it refuses, and that the first one stays."""

from pathlib import Path

import pytest

from llm4seg.data.prepared import Prepared
from llm4seg.utils.errors import InputError
from pipelines.other_data import main, other_data, value_of
from tests.layouts import write_cvc
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
