"""`llm4seg init`: what it writes, and digests of the code that change with the code alone."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from llm4seg.config import Config
from llm4seg.project import create as project
from llm4seg.project.code_file import code_digests, write_code_file
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import read_json
from llm4seg.utils.provenance import PACKAGE
from tests.import_graph import ROOT


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parent") / "my project"
    project.create(folder)
    return folder


def load(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


def test_stages_are_the_repositorys_with_digests_in_place_of_code(folder: Path) -> None:
    """Every other line of dvc.yaml is as in the repository, and code.json has what the stages list."""
    ours, theirs = load(ROOT / "dvc.yaml"), load(folder / "dvc.yaml")
    code = theirs["stages"].pop("code")
    assert code["always_changed"]
    assert code["outs"] == [{"code.json": {"cache": False, "persist": True}}]
    digests = read_json(folder / "code.json")
    for name, stage in ours["stages"].items():
        listed = [one for one in stage["deps"] if one.startswith(("llm4seg/", "pipelines/"))]
        dotted = [one.removesuffix(".py").replace("/", ".") for one in listed]
        stage["params"].append({"code.json": dotted})
        stage["deps"] = [one for one in stage["deps"] if one not in listed]
        if not stage["deps"]:
            del stage["deps"]
        assert all(digests[package][part] for package, part in (one.split(".") for one in dotted)), name
    assert theirs == ours


def test_it_has_the_default_parameters_in_a_git_repository(folder: Path) -> None:
    assert (folder / "params.yaml").read_bytes() == (ROOT / "params.yaml").read_bytes()
    assert Config.load(folder / "params.yaml").paths.model == folder / "outputs" / "model"
    assert (folder / "data" / "raw").is_dir()
    assert (folder / ".git").is_dir()
    assert len((folder / "README.md").read_text().splitlines()) <= 13
    assert {path.name for path in (folder / ".dvc").iterdir()} == {"config", ".gitignore"}


def test_inside_of_a_repository_it_makes_none(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    project.create(tmp_path / "inside")
    assert not (tmp_path / "inside" / ".git").exists()


def test_without_git_dvc_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    project.create(tmp_path / "new")
    assert "no_scm = true" in (tmp_path / "new" / ".dvc" / "config").read_text()


def test_a_folder_with_a_file_and_a_file_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(InputError, match=r"is there and not empty, allowed: a new or an empty folder$"):
            project.create(path)
    with pytest.raises(SystemExit, match=r"^init: .*is there and not empty"):
        project.main([str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_digest_changes_with_its_rooms_files_alone(tmp_path: Path) -> None:
    package = tmp_path / "llm4seg"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, package, ignore=ignored)
    shutil.copytree(ROOT / "pipelines", tmp_path / "pipelines", ignore=ignored)
    before = code_digests(package)
    assert before == code_digests()  # nothing of the path, of times or of compiled files

    (package / "report" / "__pycache__").mkdir()
    (package / "report" / "__pycache__" / "charts.pyc").write_bytes(b"compiled")
    assert code_digests(package) == before
    (package / "report" / "style.css").rename(package / "report" / "other.css")
    (tmp_path / "pipelines" / "train.py").write_text("pass\n")
    after = code_digests(package)
    changed = {f"{one}.{name}" for one in after for name in after[one] if after[one][name] != before[one].get(name)}
    assert changed == {"llm4seg.report", "pipelines.train"}


def test_a_right_code_file_is_not_written_again(tmp_path: Path) -> None:
    write_code_file(tmp_path)
    before = (tmp_path / "code.json").stat()
    write_code_file(tmp_path)
    assert (tmp_path / "code.json").stat().st_ino == before.st_ino
    (tmp_path / "code.json").write_text("{}")
    write_code_file(tmp_path)
    assert read_json(tmp_path / "code.json") == code_digests()


def test_init_says_where_dvc_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project.main([str(tmp_path / "one")])
    printed = capsys.readouterr()
    assert printed.out.endswith("one && llm4seg doctor && dvc repro\n")
    assert printed.err == ""
    monkeypatch.setattr("llm4seg.project.create.installed", lambda module: module != "dvc")
    project.main([str(tmp_path / "another")])
    assert "pip install 'llm4seg[dvc]'" in capsys.readouterr().err
