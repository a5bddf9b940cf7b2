"""DVC's comparisons say something useful about this pipeline."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from dvc.utils.hydra import apply_overrides
from PIL import Image

from tests.project import Project


@pytest.fixture(scope="module")
def compared(finished_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The finished project after an experiment with the other LLM layer, which is left in the workspace."""
    project = finished_project.copied(tmp_path_factory.mktemp("compared") / "project")
    # two epochs teach nothing that shows in the metrics; a tolerance as large as the image does
    changes = ("-S", "model.llm.layer=0", "-S", "evaluation.nsd_tolerance=100")
    shown = project.dvc("exp", "run", "--name", "first-layer", *changes)
    assert "Ran experiment(s): first-layer" in shown
    assert "Running stage 'prepare'" not in shown
    return project


def test_the_experiment_ran_with_its_layer(compared: Project) -> None:
    description = json.loads((compared.folder / "outputs" / "model" / "model.json").read_text())
    assert description["config"]["model"]["llm"]["layer"] == [0]
    assert [one["layer"] for one in description["llm"]["layers"]] == [0]


def experiments(project: Project) -> dict[str, dict[str, str]]:
    """The table of `dvc exp show`, a row an experiment or commit."""
    rows = csv.DictReader(io.StringIO(project.dvc("exp", "show", "--csv")))
    return {row["Experiment"] or row["rev"]: row for row in rows}


def test_exp_show(compared: Project) -> None:
    rows = experiments(compared)
    assert [rows[name]["model.llm.layer"] for name in ("main", "first-layer")] == ["1", "0"]
    assert all(0 < float(rows[name]["dice.mean"]) < 1 for name in ("main", "first-layer"))


def test_metrics_diff(compared: Project) -> None:
    changed = json.loads(compared.dvc("metrics", "diff", "--json"))["outputs/metrics.json"]
    assert changed["nsd.mean"]["new"] > changed["nsd.mean"]["old"]


def test_params_diff(compared: Project) -> None:
    changed = json.loads(compared.dvc("params", "diff", "--json"))["params.yaml"]
    assert {name: (values["old"], values["new"]) for name, values in changed.items()} == {
        "model.llm.layer": (1, 0),
        "evaluation.nsd_tolerance": (2.0, 100),
    }


def test_plots_show_and_diff(compared: Project) -> None:
    assert "index.html" in compared.dvc("plots", "diff", "HEAD", "workspace", "--out", "plots")
    page = (compared.folder / "plots" / "index.html").read_text()
    for shown in ("train_loss", "val_loss", "val_dice", "Dice on the validation part", "HEAD", "workspace"):
        assert shown in page
    compared.dvc("plots", "show", "--out", "plots")
    assert "vega" in (compared.folder / "plots" / "index.html").read_text()


def test_a_preset_is_an_experiment(project: Project) -> None:
    options = project.run("python", "-m", "pipelines.preset", "default", "paper-exact").split()
    project.dvc("exp", "run", "--queue", "--name", "exact", *options)
    assert experiments(project)["exact"]["model.llm.position"] == "released"
    assert experiments(project)["exact"]["model.llm.attention"] == "causal"


@pytest.mark.slow
def test_queued_experiments_run(project: Project) -> None:
    """As docs/tracking.md has it."""
    project.dvc("exp", "run", "--queue", "-S", "model.llm.layer=0,1", "train")
    assert project.dvc("queue", "status").count("Queued") == 2
    project.dvc("exp", "run", "--run-all")
    ran = [row["model.llm.layer"] for row in experiments(project).values() if row["State"] == "Success"]
    assert sorted(ran) == ["0", "1"]
    assert project.dvc("queue", "status").count("Success") == 2


def test_an_experiment_of_the_readme_means_the_same_after_another(project: Project) -> None:
    """After the CNN alone a random layer is trained, not the CNN alone again under another name."""
    lines = {
        name: project.run("python", "-m", "pipelines.preset", "default", name).split() for name in ("none", "random")
    }
    apply_overrides(project.folder / "params.yaml", lines["none"][1::2])  # as `dvc exp run` leaves it
    shown = project.dvc("exp", "run", *lines["random"], "train")
    trained = json.loads((project.folder / "outputs" / "model" / "model.json").read_text())["config"]["model"]
    assert (trained["bottleneck"], trained["llm"]["weights"], trained["llm"]["training"]) == ("llm", "random", "full")
    differing = "model.llm.weights random (pretrained), model.llm.training full (frozen)"
    assert f"train: parameters that differ from the last commit: {differing}\n" in shown


def test_a_temporary_workspace_has_own_images_and_lasting_folders(project: Project) -> None:
    folder = project.folder / "data" / "raw"
    write_images(folder)
    for dotted, value in {"data.dataset": "folder", "data.classes": {"disk": [255]}}.items():
        project.change(dotted, value)
    project.dvc("add", "data/raw/images", "data/raw/masks")
    project.commit("own images")
    assert project.git("ls-files", "data/raw").split() == [
        f"data/raw/{name}" for name in (".gitignore", "README.md", "images.dvc", "masks.dvc")
    ]
    (project.folder / ".cache" / "train_seconds.json").unlink()
    shown = project.dvc("exp", "run", "--temp", "--name", "temporary", "-S", "training.epochs=1", "train")
    assert "in no commit" not in shown
    assert experiments(project)["temporary"]["training.epochs"] == "1"
    assert (project.folder / ".cache" / "train_seconds.json").exists()


def write_images(folder: Path) -> None:
    """Bright disks on noise, as PNG files with masks."""
    rows, columns = np.mgrid[:40, :36]
    for number in range(8):
        disk = (rows - 20) ** 2 + (columns - 10 - 2 * number) ** 2 < 60
        noise = np.random.default_rng(number).integers(0, 60, disk.shape)
        for name, pixels in {"images": noise + 150 * disk, "masks": 255 * disk}.items():
            (folder / name).mkdir(exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"p{number}.png")
