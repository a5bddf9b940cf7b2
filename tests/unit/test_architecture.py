"""The dependency rules: rooms import downward or on their own floor, form no cycle; heavy packages have a home.

A room is a folder of llm4seg/; pipelines/ and infra/ are rooms, too. `python -m tests.import_graph` prints the numbers.
"""

import graphlib

from tests.import_graph import FLOORS, imported_names, imports, module_files, room, room_arrows

HOME_OF = {
    "ray": ("llm4seg.cluster", "llm4seg.search", "llm4seg.study", "infra"),
    "deepspeed": ("llm4seg.training.engines",),
    "dvc": ("llm4seg.cluster.data_sync", "infra.jobs"),
    "transformers": ("llm4seg.llm", "llm4seg.llm_sources", "llm4seg.models"),
    "yaml": ("llm4seg.config", "infra"),
    "ruamel": ("llm4seg.config",),
}


def test_every_room_has_a_floor() -> None:
    assert {room(module) for module in module_files()} - {"llm4seg"} == set(FLOORS)


def test_a_room_imports_only_from_its_own_or_a_lower_floor() -> None:
    upward = [f"{one} -> {other}" for one, other in room_arrows() if FLOORS[other] > FLOORS[one]]
    assert upward == []


def test_no_cycles_between_rooms_nor_between_files() -> None:
    rooms: dict[str, set[str]] = {}
    for one, other in room_arrows():
        rooms.setdefault(one, set()).add(other)
    files = {module: imports(file) - {module} for module, file in module_files().items()}
    for graph in (rooms, files):
        graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which shows the cycle


def test_heavy_packages_stay_at_home() -> None:
    astray = [
        f"{module} imports {package}; allowed in {', '.join(homes)}"
        for module, file in module_files().items()
        for package, homes in HOME_OF.items()
        if package in {name.split(".")[0] for name in imported_names(file)}
        and not any(f"{module}.".startswith(f"{home}.") for home in homes)
    ]
    assert astray == []


def test_every_file_says_what_it_is() -> None:
    """The map of the house is the first line of each file; README has one line a room."""
    silent = [module for module, file in module_files().items() if file.stat().st_size and not _docstring(module)]
    assert silent == []


def _docstring(module: str) -> str | None:
    import ast

    return ast.get_docstring(ast.parse(module_files()[module].read_text(encoding="utf-8")))
