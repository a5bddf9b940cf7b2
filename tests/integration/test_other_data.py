"""A second data set beside the first, by the commands of docs/datasets.md: measured by a study, and trained on."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from tests.layouts import Truth, write_cvc, write_kvasir
from tests.project import Project, make_project
from tests.servers import WebServer

ARMS = {"cnn": {"preset": "none"}, "llm": {"preset": "frozen"}}
SMALL = ("-S", "training.epochs=1", "-S", "training.augment.rotate=0")


def experiment(project: Project, *options: str) -> str:
    """What `dvc exp run` prints, with the presets named before the first option."""
    start = next(place for place, word in enumerate(options) if word.startswith("-"))
    presets = project.run("python", "-m", "pipelines.preset", *options[:start]).split()
    return project.dvc("exp", "run", *presets, *SMALL, *options[start:])


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Truth, Truth]:
    """A project after a study on Kvasir-SEG that measured CVC-ClinicDB, too; and both miniatures' masks."""
    root = tmp_path_factory.mktemp("other data")
    project = make_project(root)
    own, other = write_kvasir(root / "kvasir-seg", images=12), write_cvc(root / "cvc")
    shutil.make_archive(str(root / "site" / "downloads"), "zip", root / "kvasir-seg")
    shutil.make_archive(str(project.folder / "data" / "raw" / "cvc-clinicdb"), "gztar", root / "cvc")
    server = WebServer(root / "site")
    project.dvc("import-url", f"http://127.0.0.1:{server.port}/downloads.zip", "data/raw/kvasir-seg.zip")
    server.close()
    project.change("study.arms", ARMS)
    project.change("study.references", ["cnn"])
    project.commit("two arms")
    words = ("data/other", "cvc-clinicdb", "-S", "data.intensity=unit")
    printed = project.run("python", "-m", "pipelines.other_data", *words)
    assert "other_data: for `dvc exp run`: -S study.other_data=data/other; to version it: dvc add data/other" in printed
    study = ("-S", "data.intensity=unit", "-S", "study.repeats=1", "-S", "study.other_data=data/other")
    experiment(project, "default", "kvasir-seg", *study)
    return project, own, other


@pytest.mark.slow
def test_a_study_measures_every_case_of_the_other_data(measured: tuple[Project, Truth, Truth]) -> None:
    project, own, other = measured
    table = pd.read_csv(project.folder / "outputs" / "study" / "study.csv", dtype={"case": str})
    assert {arm: {*rows["case"]} for arm, rows in table[table["data"] == "cvc-clinicdb"].groupby("arm")} == {
        arm: {*other} for arm in ARMS
    }
    assert {*table[table["data"] == "kvasir-seg"]["case"]} < {*own}
    assert (project.folder / "data" / "other.png").is_file()
    assert "cvc-clinicdb" in (project.folder / "outputs" / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_model_trained_on_the_first_is_where_training_on_the_second_begins(
    measured: tuple[Project, Truth, Truth],
) -> None:
    project, _, _ = measured
    first, second = project.folder / "models" / "kvasir-seg", project.folder / "outputs" / "model"
    shutil.copytree(second, first)
    project.git("checkout", "params.yaml")  # the study is no part of it
    steps = ("-S", "training.init_from=models/kvasir-seg", "-S", "optimizer.lr=1e-30", "-S", "optimizer.weight_decay=0")
    printed = experiment(project, "default", "cvc-clinicdb", "-S", "data.intensity=unit", *steps)
    assert f"tensors of {first}; new ones: none" in printed
    assert same_parameters(first, second)


def same_parameters(*folders: Path) -> bool:
    """Whether two models' weights are equal, but for BatchNorm's statistics, which are those of the new images."""
    one, other = (load_file(folder / "weights.safetensors") for folder in folders)
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    names = [name for name in one if not name.endswith(statistics)]
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in names)
