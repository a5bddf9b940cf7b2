"""Which stages run again when something changes: those that read it, and no others."""

import json
from typing import Any

import pytest

from llm4seg.config import Config
from tests.project import Project

# A parameter, another value, and the stages that read it. What they write decides whether others follow. The report
# reads what it shows: data, split, evaluation.
READ_BY: list[tuple[str, Any, set[str]]] = [
    ("llm.layers", [0], {"fetch_llm"}),
    ("data.phantom.seed", 1, {"prepare", "report"}),
    ("data.size", [48, 48], {"prepare", "report"}),
    ("split.seed", 1, {"split", "study", "report"}),
    ("model.cmunext.dims", [4, 4, 8], {"search", "study", "train"}),
    ("model.llm.layer", 0, {"fetch_llm", "search", "study", "train"}),
    ("optimizer.lr", 0.1, {"search", "study", "train"}),
    ("training.augment.rotate", 5, {"search", "study", "train"}),
    ("engine.name", "torch", {"search", "study", "train"}),
    ("search.epochs", 3, {"search"}),
    ("search.space", {"model.llm.layer": [0, 1]}, {"fetch_llm", "search"}),
    ("search.trials", 1, {"fetch_llm", "search"}),
    ("evaluation.seed", 1, {"evaluate", "study", "report"}),
    ("report.title", "another", {"report"}),
    ("cluster.workers", 2, set()),
    ("cluster.device", "cpu", set()),
    ("study.metric", "iou", {"study"}),
    ("study.repeats", 1, {"fetch_llm", "study"}),
    ("presets.lora", {"model.llm.training": "lora"}, {"fetch_llm", "study"}),  # arms may name them
]


def test_every_section_is_in_the_table() -> None:
    assert {dotted.split(".")[0] for dotted, _, _ in READ_BY} == set(Config.model_fields) - {"paths"}


def test_a_parameter_makes_those_stages_stale_that_read_it(project: Project) -> None:
    params = project.folder / "params.yaml"
    original, before = params.read_text(), Config.load(params)
    assert project.stale() == {}
    for dotted, value, stages in READ_BY:
        project.change(dotted, value)
        assert Config.load(params) != before
        assert set(project.stale()) == stages, f"after {dotted}: {value!r}"
        params.write_text(original)


def test_code_and_raw_files_count_as_inputs(project: Project) -> None:
    with (project.folder / "llm4seg" / "losses.py").open("a") as file:
        file.write("# changed\n")
    (project.folder / "data" / "raw" / "new.txt").write_text("a new file")
    assert project.stale() == {
        "prepare": ["data/raw"],
        "search": ["llm4seg/objectives/losses.py"],
        "train": ["llm4seg/objectives/losses.py"],
        "evaluate": ["llm4seg/objectives/losses.py"],
        "study": ["llm4seg/objectives/losses.py"],
    }


def test_running_a_changed_stage_leaves_the_others_alone(project: Project) -> None:
    project.change("llm.layers", [0, 1])
    shown = project.dvc("repro")
    assert "Running stage 'fetch_llm'" in shown
    for stage in ("search", "train"):  # another layer in the store is none that they use
        assert f"Stage '{stage}' didn't change, skipping" in shown
    assert (project.folder / "data" / "llm" / "layer_0.safetensors").exists()

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
