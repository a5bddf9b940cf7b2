"""Private names of other packages stand in files named <package>_internals.py, one a room, and nowhere else.

So an upgrade of a package has one place to look at. Seen are imports with a part that begins with an underscore, and
attributes of such a name that nothing in this project is called by.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.import_graph import PACKAGES, ROOT

OURS = (*PACKAGES, "tests")
DOCUMENTED = {"_exit"}  # os._exit


def private(dotted: str) -> bool:
    return any(part.startswith("_") and not part.endswith("__") for part in dotted.split("."))


def private_imports(tree: ast.AST) -> Iterator[str]:
    """Dotted private names that a file imports from other packages, lazily or not."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                found = [alias.name for alias in names]
            case ast.ImportFrom(module=str(module), names=names):
                found = [f"{module}.{alias.name}" for alias in names]
            case _:
                continue
        yield from (name for name in found if private(name) and name.split(".")[0] not in OURS)


def private_attributes(tree: ast.AST) -> Iterator[str]:
    """Private attributes that a file reads, of whatever."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and private(node.attr):
            yield node.attr


def own_names(tree: ast.AST) -> Iterator[str]:
    """Names that a file gives to attributes of its own objects, to functions, classes and variables."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name, ctx=ast.Store(), value=ast.Name(id="self" | "cls" | "other")):
                yield name
            case ast.Name(id=name, ctx=ast.Store()):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name


def offenders(files: dict[str, str]) -> list[str]:
    """Each private name of another package, with the file that it stands in; `files`: their text by path."""
    trees = {path: ast.parse(text) for path, text in files.items()}
    ours = {name for tree in trees.values() for name in own_names(tree)} | DOCUMENTED
    found = list[str]()
    for path, tree in trees.items():
        if not path.endswith("_internals.py"):
            names = [*private_imports(tree), *(name for name in private_attributes(tree) if name not in ours)]
            found += [f"{path}: {name}" for name in names]
    return found


def python_files() -> list[Path]:
    return [file for package in OURS for file in sorted((ROOT / package).rglob("*.py"))]


def test_private_names_of_other_packages_stand_in_internals_files() -> None:
    assert offenders({str(file.relative_to(ROOT)): file.read_text(encoding="utf-8") for file in python_files()}) == []


def test_a_room_has_one_internals_file_for_a_package() -> None:
    """A room is a folder of llm4seg/, or all of infra/, pipelines/ or tests/."""
    rooms = list[tuple[str, str]]()
    for file in python_files():
        if file.name.endswith("_internals.py"):
            package, *parts = file.relative_to(ROOT).parts
            rooms.append((parts[0] if package == "llm4seg" else package, file.name))
    assert sorted(rooms) == sorted(set(rooms))
    assert ("cluster", "ray_internals.py") in rooms


def test_what_is_private_is_seen() -> None:
    ours = "class Shelf:\n    def _read(self):\n        self._path = 1\n"
    theirs = "import a._b\nfrom ray._private import worker\nimport llm4seg._x\nimport os\nos.__file__\nos._exit(0)\n"
    read = "def f(shelf, storage):\n    shelf._read(shelf._path)\n    storage._check()\n    storage._flag = 1\n"
    found = offenders({"one.py": ours, "two.py": theirs, "three.py": read, "ray_internals.py": theirs})
    assert found == ["two.py: a._b", "two.py: ray._private.worker", "three.py: _check"]
