"""When `prepare` advises to version own images."""

import subprocess
from pathlib import Path

import pytest

from pipelines.own_images import versioning_hint


def hint(folder: Path, *commands: str) -> str | None:
    """The hint on folder/data/raw, whose README git has, after commands in `folder`."""
    for name in ("images", "masks"):
        (folder / "data" / "raw" / name).mkdir(parents=True, exist_ok=True)
        (folder / "data" / "raw" / name / "p.png").touch()
    (folder / "data" / "raw" / "README.md").touch()
    for command in commands:
        subprocess.run(command.split(), cwd=folder, check=True)
    return versioning_hint(folder / "data" / "raw")


def test_images_in_no_commit_are_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert hint(tmp_path) is None  # without git there are no experiments
    both = "data/raw/images data/raw/masks"
    found = hint(tmp_path, "git init -q", "git add data/raw/README.md")
    assert found == (
        f"{both}: in no commit, so `dvc exp run --temp` and `--queue` do not see them: dvc add {both}, and commit"
    )
    assert (hint(tmp_path, "touch data/raw/images.dvc") or "").startswith("data/raw/masks: in no commit")
    assert hint(tmp_path, "git add data/raw/masks") is None
    assert hint(tmp_path, "git rm -q -r --cached data/raw/masks", "touch data/raw.dvc") is None


def test_a_folder_and_an_archive_of_their_own_are_named_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hint(tmp_path, "git init -q", "git add data/raw/README.md")
    archive = tmp_path / "data" / "raw" / "busi.zip"
    archive.touch()
    for path in (archive, tmp_path / "data" / "raw" / "images"):
        name = f"data/raw/{path.name}"
        assert (versioning_hint(path) or "").endswith(f"`--queue` do not see them: dvc add {name}, and commit")
        Path(f"{path}.dvc").touch()
        assert versioning_hint(path) is None
    assert versioning_hint(tmp_path / "data" / "none") is None


def test_images_elsewhere_are_there_in_a_temporary_workspace_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "workspace").mkdir()
    monkeypatch.chdir(tmp_path / "workspace")
    assert hint(tmp_path, "git init -q") is None
