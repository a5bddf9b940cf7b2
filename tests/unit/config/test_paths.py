"""Paths of a config: taken from the folder of params.yaml, those that outlast a run from the main workspace."""

from pathlib import Path

import pytest

from llm4seg.config import Config
from tests.params import PARAMS, load, load_with, values


def test_paths_are_taken_from_the_folder_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "params.yaml").write_text(PARAMS.read_text())
    monkeypatch.chdir(tmp_path.parent)
    loaded = Config.load(Path(tmp_path.name) / "params.yaml")
    assert all(path.is_absolute() and path.is_relative_to(tmp_path) for _, path in loaded.paths)
    assert loaded.data.root == tmp_path / "data" / "raw"


@pytest.mark.parametrize(
    "below", [".dvc/tmp/exps/standalone/tmpab12", ".dvc/tmp/exps/tmpab12", ".dvc/tmp/exps/tmpab12/sub"]
)
def test_what_outlasts_a_run_lies_in_the_main_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    """In a temporary workspace of `dvc exp run`; DVC's outputs stay there. LLM4SEG_HOME comes first."""
    monkeypatch.delenv("LLM4SEG_HOME", raising=False)
    folder = tmp_path / below
    folder.mkdir(parents=True)
    loaded = load(folder, values())
    lasting = {"cache": ".cache", "runs": ".runs", "study_runs": ".study", "tracking": ".tracking"}
    assert {name: path for name, path in loaded.paths if not path.is_relative_to(folder)} == {
        name: tmp_path / path for name, path in lasting.items()
    }
    assert load_with(folder, "paths.cache", "/downloads").paths.cache == Path("/downloads")
    monkeypatch.setenv("LLM4SEG_HOME", str(tmp_path / "home"))
    for place in (folder, tmp_path):
        paths = load(place, values()).paths
        assert [paths.cache, paths.runs, paths.study_runs, paths.model] == [
            *(tmp_path / "home" / name for name in (".cache", ".runs", ".study")),
            place / "outputs" / "model",
        ]


def test_an_absolute_path_stays(tmp_path: Path) -> None:
    loaded = load_with(tmp_path, "data.root", "/somewhere/else")
    assert loaded.data.root == Path("/somewhere/else")


def test_what_a_study_names_is_found_from_the_folder_of_the_file(tmp_path: Path) -> None:
    changed = values()
    changed["study"]["other_data"] = "data/other"
    assert load(tmp_path, values({"study.data": ["data", "/x"]})).study.data == (tmp_path / "data", Path("/x"))
    changed["study"]["arms"]["transfer"] = {"preset": "frozen", "training.init_from": "models/lung"}
    loaded = load(tmp_path, changed)
    assert loaded.study.other_data == tmp_path / "data" / "other"
    assert loaded.arm("transfer").training.init_from == tmp_path / "models" / "lung"
    assert loaded.training.init_from is None
