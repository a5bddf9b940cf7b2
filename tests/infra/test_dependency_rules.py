"""Dependency rules inside infra: each folder has a floor, imports downward, no cycles; Ray's internals in one file."""

import graphlib
import subprocess
import sys

from tests.import_graph import ROOT, imported_names, imports, module_files

FLOORS = {
    "shell": 0,
    "nodes": 0,
    "storage": 1,
    "jobs": 2,
    "launchers": 3,
    "planning": 4,
    "commands": 5,
    "end_idle": 6,
    "__main__": 6,
}


def folder(module: str) -> str:
    """The folder of infra, or the file beside the folders, that a module of infra is in."""
    return module.split(".")[1]


def arrows() -> set[tuple[str, str]]:
    """Which folder of infra imports from which other one."""
    modules = [module for module in module_files() if module.startswith("infra.")]
    pairs = {
        (folder(module), folder(other))
        for module in modules
        for other in imports(module_files()[module])
        if other.startswith("infra.")
    }
    return {(one, other) for one, other in pairs if one != other}


def test_every_folder_has_a_floor() -> None:
    assert {folder(module) for module in module_files() if module.startswith("infra.")} == set(FLOORS)


def test_a_folder_imports_only_from_lower_floors() -> None:
    upward = [f"{one} -> {other}" for one, other in arrows() if FLOORS[one] <= FLOORS[other]]
    assert upward == []


def test_no_cycles_between_folders() -> None:
    graph: dict[str, set[str]] = {}
    for one, other in arrows():
        graph.setdefault(one, set()).add(other)
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which shows the cycle


def test_private_names_of_ray_stand_in_one_file() -> None:
    private = {
        module
        for module, file in module_files().items()
        if module.startswith("infra.")
        and any(name.startswith("ray.") and "._" in name for name in imported_names(file))
    }
    assert private == {"infra.launchers.ray_internals"}


def test_no_command_waits_for_torch_before_it_begins() -> None:
    script = "import sys, infra.__main__ as main; main.parser(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode == 0
