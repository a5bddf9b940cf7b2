"""Atomic outputs: written beside the target, then renamed."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llm4seg.utils.errors import InputError


def remove(path: Path) -> None:
    """Delete a file or a folder tree, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _replace(new: Path, target: Path) -> None:
    """Move `new` to `target`. A folder cannot be renamed over another, so the old one is moved aside first."""
    if not target.is_dir():
        new.replace(target)
        return
    old = target.with_name(f".{target.name}.old")
    remove(old)
    target.rename(old)
    new.rename(target)
    remove(old)


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Context manager of a temporary path beside `target`, renamed to it if the block succeeds, else deleted.

    The block creates a file or a folder there. Whatever was at `target` stays until the rename.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    remove(partial)
    try:
        yield partial
        _replace(partial, target)
    except BaseException:
        remove(partial)
        raise


@contextmanager
def replacing_by_name(target: Path) -> Iterator[Path]:
    """As `replacing`, for files whose writers choose the format by the name: that of the target, in a hidden folder."""
    folder = target.with_name(f".{target.name}.partial")
    remove(folder)
    folder.mkdir(parents=True)
    try:
        yield folder / target.name
        (folder / target.name).replace(target)
    finally:
        remove(folder)


def write_text(target: Path, text: str) -> None:
    """Write `text` to `target`, atomically."""
    with replacing(target) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(target: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_text(target, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises InputError naming the file when it is missing or is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run the stage that makes it (`dvc repro`)") from None
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON: {error}") from None


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
