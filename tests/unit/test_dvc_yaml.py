"""dvc.yaml lists exactly the code that each stage runs, and only parameters that exist."""

from pathlib import Path

import pytest
import yaml

from llm4seg.config import Config
from tests.import_graph import ROOT, closure, module_files

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
# types and plumbing: no values, so a change in them is no reason to train again
PLUMBING = {
    "llm4seg.config",
    "llm4seg.config.overrides",
    *(name for name in module_files() if name.startswith("llm4seg.config.schema")),
    "llm4seg.utils.errors",
    "llm4seg.utils.files",
    "pipelines",
    "pipelines.stage",
}


def says_something(file: Path) -> bool:
    """Whether a file is more than the docstring of a package's __init__.py."""
    return file.name != "__init__.py" or "import " in file.read_text() or "= " in file.read_text()


def needed(stage: str) -> set[Path]:
    """The code files that a stage runs."""
    files = module_files()
    return {files[name] for name in closure(f"pipelines.{stage}") - PLUMBING if says_something(files[name])}


def listed(stage: str) -> set[Path]:
    """The code files that dvc.yaml lists for a stage, folders opened."""
    code = [ROOT / dep for dep in STAGES[stage]["deps"] if dep.startswith(("llm4seg/", "pipelines/"))]
    opened = [file for path in code for file in (path.rglob("*.py") if path.is_dir() else [path])]
    return {file for file in opened if says_something(file)}


def lines_to_paste(stage: str) -> str:
    """What dvc.yaml should list: folders that are needed whole, and files."""
    files = needed(stage)
    folders = {file.parent for file in files} - {ROOT / "llm4seg", ROOT / "pipelines"}
    whole = {folder for folder in folders if {f for f in folder.rglob("*.py") if says_something(f)} <= files}
    paths = whole | {file for file in files if file.parent not in whole}
    return "\n".join(f"      - {path.relative_to(ROOT)}" for path in sorted(paths))


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_lists_exactly_its_code(stage: str) -> None:
    missing = {str(file.relative_to(ROOT)) for file in needed(stage) - listed(stage)}
    extra = {str(file.relative_to(ROOT)) for file in listed(stage) - needed(stage)}
    assert not missing | extra, (
        f"dvc.yaml, stage {stage}: missing {sorted(missing)}, too many {sorted(extra)}; "
        f"it should list:\n{lines_to_paste(stage)}"
    )


@pytest.mark.parametrize("stage", STAGES)
def test_params_exist_and_none_says_where_a_run_happens(stage: str) -> None:
    values = Config.load(ROOT / "params.yaml").plain()
    for dotted in STAGES[stage]["params"]:
        found = values
        for part in dotted.split("."):
            assert part in found, f"stage {stage}: {dotted} is no parameter"
            found = found[part]
    assert not {dotted.split(".")[0] for dotted in STAGES[stage]["params"]} & {"cluster", "paths"}


def test_every_section_that_decides_a_result_is_read_by_a_stage() -> None:
    read = {dotted.split(".")[0] for stage in STAGES.values() for dotted in stage["params"]}
    assert read == set(Config.model_fields) - {"cluster", "paths"}


def test_outputs_survive_an_interrupted_stage() -> None:
    outs = [out for stage in STAGES.values() for out in [*stage.get("outs", []), *stage.get("metrics", [])]]
    assert all(options["persist"] for out in outs for options in out.values())
