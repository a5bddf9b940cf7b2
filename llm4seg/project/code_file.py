"""code.json of a project: digests of the installed package's code, which the project's stages list as parameters.

`python -m llm4seg.project.code_file` writes it: a project's first stage, which DVC always runs. So after an upgrade of
the package those stages run again whose rooms have changed, and no others.
"""

import hashlib
from pathlib import Path

from llm4seg.utils.files import read_json, write_json
from llm4seg.utils.provenance import PACKAGE

CODE = "code.json"
COMMAND = "python -m llm4seg.project.code_file"  # of the stage in dvc.yaml
DIGITS = 16  # of a sha256


def code_digests(package: Path = PACKAGE) -> dict[str, dict[str, str]]:
    """The digests of the package's rooms, and of the files of `pipelines` beside it, by dotted name."""
    rooms = sorted(path for path in package.iterdir() if path.is_dir() and path.name != "__pycache__")
    stages = sorted((package.parent / "pipelines").glob("*.py"))
    return {
        package.name: {room.name: _digest(room) for room in rooms},
        "pipelines": {stage.stem: _digest(stage) for stage in stages},
    }


def _digest(path: Path) -> str:
    """The digest of a file, or of the names and bytes of all files in a folder, without what Python compiles."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        if file.is_file() and "__pycache__" not in file.parts:
            name = file.relative_to(path.parent).as_posix()
            digest.update(f"{name}\n{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:DIGITS]


def write_code_file(folder: Path) -> None:
    """Write code.json, unless it is right."""
    path, digests = folder / CODE, code_digests()
    if not path.is_file() or read_json(path) != digests:
        write_json(path, digests)


def is_project(folder: Path) -> bool:
    """Whether a folder is one that `llm4seg init` made: its dvc.yaml has the stage that writes code.json."""
    stages = folder / "dvc.yaml"
    return stages.is_file() and COMMAND in stages.read_text(encoding="utf-8")


if __name__ == "__main__":
    write_code_file(Path.cwd())
