"""The imports between this project's files, read from their source: lazy ones inside functions count too."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("llm4seg", "pipelines", "infra")
FLOORS = {
    "utils": 0,
    "config": 0,
    "runtime": 1,
    "llm": 1,
    "llm_sources": 2,
    "objectives": 2,
    "data": 2,
    "datasets": 3,
    "models": 3,
    "inference": 3,
    "training": 4,
    "analysis": 5,
    "evaluation": 5,
    "released": 5,
    "predict": 6,
    "tracking": 5,
    "cluster": 6,
    "export": 7,
    "search": 7,
    "study": 7,
    "report": 8,
    "tools": 8,
    "project": 8,
    "pipelines": 9,
    "cli": 9,
    "infra": 9,
}


@cache
def module_files() -> dict[str, Path]:
    """Every module of the project by its dotted name."""
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    return {_dotted(file): file for file in files}


def _dotted(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_names(file: Path) -> Iterator[str]:
    """Every dotted name that a file imports; `from a import b` gives a and a.b."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                assert level == 0, f"{file}: relative import"
                yield str(module)
                yield from (f"{module}.{alias.name}" for alias in names)


@cache
def imports(file: Path) -> set[str]:
    """The project's own modules that a file imports."""
    return {name for name in imported_names(file) if name in module_files()}


def closure(module: str) -> set[str]:
    """A module and all its imports, direct or through others."""
    files, found, open_ = module_files(), set[str](), [module]
    while open_:
        name = open_.pop()
        if name not in found:
            found.add(name)
            parents = [name.rsplit(".", depth)[0] for depth in range(1, name.count(".") + 1)]
            open_ += [*imports(files[name]), *parents]
    return found


def room(module: str) -> str:
    """The room that a module is in: a folder of llm4seg/, or pipelines or infra."""
    package, _, rest = module.partition(".")
    return rest.split(".")[0] if package == "llm4seg" and rest else package


def room_arrows() -> set[tuple[str, str]]:
    """The imports between rooms: pairs of the importing and the imported room."""
    pairs = {(room(one), room(other)) for one, file in module_files().items() for other in imports(file)}
    return {(one, other) for one, other in pairs if one != other and "llm4seg" not in (one, other)}


if __name__ == "__main__":
    arrows = room_arrows()
    upward = [f"{one} -> {other}" for one, other in sorted(arrows) if FLOORS[other] > FLOORS[one]]
    print(
        f"{len(FLOORS)} rooms on {len(set(FLOORS.values()))} floors, {len(arrows)} arrows, {len(upward)} of them upward"
    )
    print("\n".join(upward))
