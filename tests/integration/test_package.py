"""The wheel, installed outside of the repository: its files, its command, the core without extras, `llm4seg init`."""

import json
import subprocess
import zipfile
from pathlib import Path

import pytest
import yaml

from tests.import_graph import ROOT
from tests.installed import build_wheel, clean_environment, install
from tests.project import Project, shrink

EXTRAS_ONLY = ("ray", "deepspeed", "dvc", "optuna", "boto3", "botocore", "s3fs", "SimpleITK", "pydicom", "skimage")
STAGES = list(yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"])
# Every stage in one process, since one each would import torch eight times; then the model that they trained in use.
# None of the extras' packages can be imported there.
ALL_STAGES = f"""
import runpy, sys
from importlib.util import find_spec

assert not [name for name in {EXTRAS_ONLY} if find_spec(name)]
for stage in {STAGES}:
    sys.argv = [stage]
    runpy.run_module(f"pipelines.{{stage}}", run_name="__main__")

import numpy, llm4seg
mask = llm4seg.load("outputs/model").predict(numpy.random.default_rng(0).random((40, 36), dtype="float32"))
assert mask.shape == (40, 36)
"""


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def core(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel and no extras."""
    return install(wheel, tmp_path_factory.mktemp("core") / "venv")


def run(folder: Path, *command: str | Path, **environment: str) -> str:
    """What a command prints, which must succeed."""
    environment = clean_environment() | environment
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_has_the_data_files_and_nothing_of_infra(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    inside = {name for name in names if not name.endswith(".py") and ".dist-info/" not in name}
    in_repository = {
        file.relative_to(ROOT).as_posix()
        for package in ("llm4seg", "pipelines")
        for file in (ROOT / package).rglob("*")
        if file.is_file() and file.suffix not in (".py", ".pyc")
    }
    assert inside == in_repository
    assert {"llm4seg/py.typed", "llm4seg/report/style.css", "llm4seg/project/params.yaml"} <= inside
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"llm4seg", "pipelines"}
    assert zipfile.ZipFile(wheel).read("llm4seg/project/params.yaml") == (ROOT / "params.yaml").read_bytes()


def test_the_command_works_from_the_wheel(core: Path, tmp_path: Path) -> None:
    assert "\n  init " in run(tmp_path, core / "llm4seg", "--help")
    assert "example: llm4seg upgrade --params" in run(tmp_path, core / "llm4seg", "upgrade", "--help")
    where = run(tmp_path, core / "python", "-c", "import llm4seg; print(llm4seg.__file__)")
    assert Path(where).is_relative_to(core.parent)


def test_the_core_trains_in_one_process_and_predicts(core: Path, tmp_path: Path) -> None:
    """Every stage and a prediction, without Ray, DeepSpeed, DVC and all other packages of extras."""
    run(tmp_path, core / "llm4seg", "init", "project")
    project = Project(tmp_path / "project")
    shrink(project, tmp_path)
    run(project.folder, core / "python", "-c", ALL_STAGES, LLM4SEG_HOME=str(tmp_path))
    assert json.loads((project.folder / "outputs/metrics.json").read_text())["dice"]["mean"] >= 0
    versions = json.loads((project.folder / "outputs/model/model.json").read_text())["versions"]
    assert (versions["ray"], versions["deepspeed"]) == ("none", "none")
    assert "none" not in (versions["torch"], versions["monai"], versions["numpy"])

    project.change("cluster.launcher", "ray")
    command, environment = [core / "llm4seg", "doctor"], clean_environment()
    done = subprocess.run(command, cwd=project.folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.endswith("needs ray, which is not installed: pip install 'llm4seg[cluster]'")


@pytest.mark.slow
def test_a_project_outside_of_the_repository(wheel: Path, tmp_path: Path) -> None:
    """`dvc repro` from the wheel; then an upgrade of the installed package runs those stages whose code changed."""
    programs = install(wheel, tmp_path / "venv", "dvc")
    run(tmp_path, programs / "llm4seg", "init", "project")
    project = Project(tmp_path / "project")
    shrink(project, tmp_path)
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "PYTHONPATH": ""}
    first = project.run("dvc", "repro", **environment)
    assert all(f"Running stage '{stage}'" in first for stage in STAGES)
    assert (project.folder / "outputs" / "report.html").is_file()
    project.commit("a first run")
    assert stages_run(project.run("dvc", "repro", **environment)) == {"code"}

    (site,) = tmp_path.glob("venv/lib/python*/site-packages")
    with (site / "llm4seg" / "report" / "charts.py").open("a") as file:
        file.write("# an upgrade\n")
    assert stages_run(project.run("dvc", "repro", **environment)) == {"code", "report"}
    assert "llm4seg.report" in project.run("dvc", "params", "diff", **environment)
    with (site / "llm4seg" / "evaluation" / "evaluate.py").open("a") as file:
        file.write("# another\n")
    project.run("llm4seg", "doctor", **environment)  # brings code.json up to date, so that `dvc status` knows
    stale = json.loads(project.run("dvc", "status", "--json", **environment))
    assert set(stale) == {"code", "evaluate", "report", "study"}
    assert stages_run(project.run("dvc", "repro", **environment)) == {"code", "evaluate", "report", "study"}


def stages_run(shown: str) -> set[str]:
    """The stages that `dvc repro` says it has run."""
    return {line.split("'")[1] for line in shown.splitlines() if line.startswith("Running stage")}
