"""A remote on S3: pushed from one clone, pulled into another, and nothing to run there."""

from pathlib import Path

from tests.project import Project
from tests.servers import BUCKET, S3


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_push_clone_pull_and_nothing_to_do(project: Project, s3: S3, tmp_path: Path) -> None:
    project.dvc("remote", "add", "--default", "store", f"s3://{BUCKET}/results")
    project.dvc("remote", "modify", "store", "endpointurl", s3.url)
    project.commit("a remote")
    assert "pushed" in project.dvc("push")
    assert "Everything is up to date" in project.dvc("push")

    project.git("clone", "--quiet", str(project.folder), str(tmp_path / "elsewhere" / "clone"))
    clone = Project(tmp_path / "elsewhere" / "clone")
    assert not (clone.folder / "outputs" / "model").exists()
    assert "fetched" in clone.dvc("pull")
    for folder in ("outputs", "data"):
        assert contents(clone.folder / folder) == contents(project.folder / folder)
    assert "Data and pipelines are up to date." in clone.dvc("status")
    shown = clone.dvc("repro")
    assert "Running stage" not in shown
    assert "Data and pipelines are up to date." in shown
    assert clone.git("status", "--porcelain") == ""
