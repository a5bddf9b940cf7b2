"""Whether the tests of infra/ need to run again: a digest of everything that decides their result.

`python -m tests.infra_digest` prints it; `--check` ends with 0 if it is the one in tests/infra/passed.json, with which
the tests passed last; `--write` writes that file, after they have passed.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.import_graph import ROOT, imported_names

FOLDERS = ("infra", "tests/infra", "tests/fixtures/kuberay")
FILES = ("tests/conftest.py", "params.yaml", "pyproject.toml", "requirements.lock", "Makefile", ".dockerignore")
PASSED = "tests/infra/passed.json"


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="exit code 0: nothing has changed; 1: run the tests")
    action.add_argument("--write", action="store_true", help="the tests have passed with these files")
    options, found = parser.parse_args(words), digest()
    if options.write:
        (ROOT / PASSED).write_text(json.dumps({"digest": found}) + "\n", encoding="utf-8")
    elif options.check:
        same = passed() == found
        print(f"infra/ and what it imports: {'as' if same else 'changed since'} the tests of tests/infra passed last")
        return 0 if same else 1
    else:
        print(found)
    return 0


def passed() -> str | None:
    """The digest with which the tests passed last, if they ever did."""
    file = ROOT / PASSED
    return str(json.loads(file.read_text(encoding="utf-8"))["digest"]) if file.exists() else None


def digest(root: Path = ROOT) -> str:
    """The sha256 of the names and bytes of all deciding files."""
    whole = hashlib.sha256()
    for file in deciding_files(root):
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        whole.update(f"{content} {file.relative_to(root).as_posix()}\n".encode())
    return whole.hexdigest()


def deciding_files(root: Path = ROOT) -> list[Path]:
    """The files of infra/ and of its tests, and the project's files that these import, directly or through others.

    Helpers beside tests/infra serve other tests, too, with other imports: only those of further helpers are followed.
    """
    inside = {file for folder in FOLDERS for file in (root / folder).rglob("*") if file.is_file()}
    found = {file for file in inside if "__pycache__" not in file.parts and file != root / PASSED}
    found |= {root / name for name in FILES if (root / name).exists()}
    unread = [file for file in found if file.suffix == ".py"]
    while unread:
        file = unread.pop()
        new = set(_imported_files(root, file)) - found
        if file.parent == root / "tests":
            new = {one for one in new if one.parent == root / "tests"}
        found |= new
        unread += new
    return sorted(found)


def _imported_files(root: Path, file: Path) -> Iterator[Path]:
    """The project's files that a file imports, and the __init__ files of their packages."""
    for name in imported_names(file):
        parts = name.split(".")
        for depth in range(1, len(parts) + 1):
            path = root.joinpath(*parts[:depth])
            yield from (one for one in (path.with_suffix(".py"), path / "__init__.py") if one.is_file())


if __name__ == "__main__":
    sys.exit(main())
