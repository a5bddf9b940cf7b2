"""Which stages run again when something changes: those that read it, and no others."""

import json

import pytest

from tests.project import Project


def test_a_parameter_makes_those_stages_stale_that_read_it(project: Project) -> None:
    """Two of them for real: tests/unit/test_dvc_yaml.py has the rest."""
    params = project.folder / "params.yaml"
    original = params.read_text()
    for dotted, value, stages in (
        ("model.llm.layer", 0, {"fetch_llm", "search", "study", "train"}),
        ("cluster.device", "cpu", set()),
    ):
        project.change(dotted, value)
        assert set(project.stale()) == stages, f"after {dotted}: {value!r}"
        params.write_text(original)


def test_a_changed_room_makes_those_stages_stale_that_run_it(project: Project) -> None:
    package = project.folder / "llm4seg"
    for name in ("report/charts.py", "cluster/failures.py", "utils/errors.py", "config/overrides.py", "llm/store.py"):
        with (package / name).open("a") as file:
            file.write("# changed\n")
    (package / "report" / "new.py").write_text('"""A new file."""')
    (project.folder / "data" / "raw" / "new.txt").write_text("a new file")
    llm = ["llm4seg/llm"]
    assert project.stale() == {
        "fetch_llm": llm,
        "prepare": ["data/raw"],
        "search": llm,
        "train": llm,
        "evaluate": llm,
        "analyze": llm,
        "study": llm,
        "report": ["llm4seg/llm", "llm4seg/report"],
    }


def test_pictures_errors_and_sources_train_nothing_again(project: Project) -> None:
    package = project.folder / "llm4seg"
    for name in ("report/charts.py", "cluster/failures.py", "utils/errors.py", "llm_sources/sources.py"):
        with (package / name).open("a") as file:
            file.write("# changed\n")
    assert project.stale() == {"fetch_llm": ["llm4seg/llm_sources"], "report": ["llm4seg/report"]}


def test_running_a_changed_stage_leaves_the_others_alone(project: Project) -> None:
    project.change("llm.layers", [0, 1])
    shown = project.dvc("repro")
    assert "Running stage 'fetch_llm'" in shown
    for stage in ("search", "train"):  # another layer in the store is none that they use
        assert f"Stage '{stage}' didn't change, skipping" in shown
    assert [*(project.folder / "data" / "llm").glob("*/layer_0.safetensors")]  # in the folder of its source

    project.change("report.title", "Another title")
    assert "Running stage 'report'" in project.dvc("repro", "--dry")
    assert project.dvc("repro").count("Running stage") == 1
    assert "Another title" in (project.folder / "outputs" / "report.html").read_text()


def test_a_second_run_does_nothing_and_says_so(project: Project) -> None:
    assert project.dvc("repro").splitlines()[-1] == "Data and pipelines are up to date."


def test_a_finished_run_leaves_what_it_promises(finished_project: Project) -> None:
    outputs = finished_project.folder / "outputs"
    metrics = json.loads((outputs / "metrics.json").read_text())
    assert 0 <= metrics["dice"]["mean"] <= 1
    assert (outputs / "history.csv").read_text().splitlines()[0] == "epoch,train_loss,val_loss,val_dice,lr"
    assert not list(finished_project.folder.glob(".runs/*"))  # a finished run is forgotten
    assert not list(outputs.rglob(".*.partial"))


@pytest.mark.parametrize("name", ["metrics.json", "history.csv"])
def test_small_results_are_in_git(finished_project: Project, name: str) -> None:
    assert f"outputs/{name}" in finished_project.git("ls-files", "outputs")
