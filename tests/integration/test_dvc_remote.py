"""Remotes: on S3, pushed from one clone, pulled into another, and nothing to run there; a model out of a folder's."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

import llm4seg
from llm4seg.config import Config
from tests.import_graph import ROOT
from tests.project import Project
from tests.saved_model import save_random_model
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


@pytest.fixture
def model_project(config: Config, tmp_path: Path) -> Project:
    """A repository with a model of random weights that is tagged, pushed to a folder and followed by another's commit.

    Its dvc.yaml has the project's own artifacts, and of its stages nothing but that `train` writes the model.
    """
    own = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    model = {"cmd": own["stages"]["train"]["cmd"], "outs": own["stages"]["train"]["outs"][:1]}
    project = Project(tmp_path / "project")
    project.folder.mkdir()
    shutil.copy2(ROOT / "params.yaml", project.folder)
    declared = {"vars": own.get("vars", []), "stages": {"train": model}, "artifacts": own["artifacts"]}
    (project.folder / "dvc.yaml").write_text(yaml.safe_dump(declared), encoding="utf-8")
    project.git("init", "--quiet", "--initial-branch=main")
    (project.folder / ".dvc").mkdir()
    settings = f"[core]\nremote = store\n['remote \"store\"']\nurl = {tmp_path / 'remote'}\n"
    (project.folder / ".dvc" / "config").write_text(settings, encoding="utf-8")
    shutil.copy2(ROOT / ".dvc" / ".gitignore", project.folder / ".dvc")
    for seed, tag in enumerate(("model@v1.0.0", None)):
        changes = {"paths.model": str(project.folder / "outputs" / "model"), "training.seed": seed}
        save_random_model(config.override(changes))
        shutil.copytree(project.folder / "outputs" / "model", tmp_path / f"model of seed {seed}")
        project.dvc("commit", "--quiet", "--force", "train")
        project.commit(f"a model of seed {seed}")
        if tag:
            project.git("tag", "--annotate", tag, "--message", "first")
    project.dvc("push", "--quiet", "--all-commits")
    return project


def test_the_model_of_a_tag_is_got_from_anywhere(model_project: Project, config: Config, tmp_path: Path) -> None:
    """As docs/export.md says: an annotated tag, `dvc push`, and elsewhere `dvc artifacts get`; untagged, `dvc get`."""
    elsewhere, repository = Project(tmp_path / "elsewhere"), str(model_project.folder)
    elsewhere.folder.mkdir()
    elsewhere.dvc("artifacts", "get", repository, "model", "--rev", "v1.0.0", "-o", "tagged")
    elsewhere.dvc("artifacts", "get", repository, "model", "-o", "newest")
    elsewhere.dvc("get", repository, "outputs/model", "--rev", "main", "-o", "untagged")
    first, second = (contents(tmp_path / f"model of seed {seed}") for seed in (0, 1))
    assert {"model.json", "weights.safetensors"} <= first.keys()
    assert first["weights.safetensors"] != second["weights.safetensors"]
    assert contents(elsewhere.folder / "tagged") == contents(elsewhere.folder / "newest") == first
    assert contents(elsewhere.folder / "untagged") == second

    image = np.random.default_rng(0).random((40, 36), dtype=np.float32)
    masks = [
        llm4seg.load(folder, llm=config.paths.llm_used).predict(image)
        for folder in (elsewhere.folder / "tagged", tmp_path / "model of seed 0")
    ]
    assert masks[0].shape == image.shape
    assert masks[0].any()
    assert np.array_equal(*masks)
