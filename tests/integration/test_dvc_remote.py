"""Remotes: on S3, pushed from one clone, pulled into another, and nothing to run there; a model out of a folder's."""

from pathlib import Path

import numpy as np

import llm4seg
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


def test_the_model_of_a_tag_is_got_from_anywhere(project: Project, tmp_path: Path) -> None:
    """As docs/export.md says: an annotated tag, `dvc push`, and elsewhere `dvc artifacts get`; untagged, `dvc get`."""
    project.dvc("remote", "add", "--default", "store", str(tmp_path / "remote"))
    project.commit("a remote")
    project.git("tag", "--annotate", "model@v1.0.0", "--message", "first")
    project.dvc("push")
    project.change("report.title", "Something later")
    project.commit("a later commit")

    (tmp_path / "elsewhere").mkdir()
    elsewhere, repository = Project(tmp_path / "elsewhere"), str(project.folder)
    elsewhere.dvc("artifacts", "get", repository, "model", "--rev", "v1.0.0", "-o", "tagged")
    elsewhere.dvc("artifacts", "get", repository, "model", "-o", "newest")
    elsewhere.dvc("get", repository, "outputs/model", "--rev", "main", "-o", "untagged")
    files = contents(project.folder / "outputs" / "model")
    assert {"model.json", "weights.safetensors"} <= files.keys()
    assert all(contents(elsewhere.folder / name) == files for name in ("tagged", "newest", "untagged"))

    model = llm4seg.load(elsewhere.folder / "tagged", llm=project.folder / "data" / "llm_used")
    mask = model.predict(np.random.default_rng(0).random((40, 36), dtype=np.float32))
    assert mask.shape == (40, 36)
    assert mask.max() <= len(model.classes)
