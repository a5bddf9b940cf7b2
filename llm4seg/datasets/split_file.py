"""`split.file`: lists of ids beside the data, as text or JSON."""

import unicodedata
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm4seg.data.prepared import PARTS, SplitLists
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import read_json

FORMS = '{"train": [ids], "val": [ids], "test": [ids]}, one or two of them, or a list of such, one a fold'


def read_split_file(root: Path, file: str | Mapping[str, str] | None) -> SplitLists | None:
    """The lists of `split.file`, of files in the folder of the data; None where it is null.

    A text has an id a line, of the test part; a mapping names a text for each part. JSON has lists of ids by part, or
    such lists for each fold (nnU-Net's). Raises InputError naming the file that is missing, of another form, or has an
    id twice.
    """
    if file is None:
        return None
    if not isinstance(file, str):
        lists = SplitLists(", ".join(file.values()), {part: read_ids(root / name) for part, name in file.items()})
    elif file.lower().endswith(".json"):
        lists = read_lists(_existing(root / file), file)
    else:
        lists = SplitLists(file, {"test": read_ids(root / file)})
    for parts in (lists.parts, *lists.folds):
        for part, ids in parts.items():
            if twice := [one for one, count in Counter(ids).items() if count > 1]:
                raise InputError(f"split.file: found {twice[0]!r} twice in {part} of {lists.source}, allowed: once")
    return lists


def read_lists(path: Path, source: str) -> SplitLists:
    """The lists of a JSON file: of each part, or of each part of each fold. `source`: what messages call the file."""
    values = read_json(path)
    if isinstance(values, list) and values:
        return SplitLists(source, folds=tuple(_parts(fold, path) for fold in values))
    return SplitLists(source, _parts(values, path))


def _parts(values: Any, path: Path) -> dict[str, tuple[str, ...]]:
    if not isinstance(values, dict) or not values:
        raise InputError(f"{path}: found no lists of ids, allowed: {FORMS}")
    for part, ids in values.items():
        if part not in PARTS:
            raise InputError(f"{path}: found {part!r}, allowed: {FORMS}")
        if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
            raise InputError(f"{path}: found in {part!r} what is no list of texts, allowed: {FORMS}")
    return {part: tuple(map(_composed, ids)) for part, ids in values.items()}


def read_ids(path: Path) -> tuple[str, ...]:
    """The ids of a text, one a line. Raises InputError where the file is missing or is no text."""
    try:
        text = _existing(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is no text in UTF-8 ({error}); allowed: an id a line, or a .json file") from None
    return tuple(_composed(line.strip()) for line in text.splitlines() if line.strip())


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise InputError(f"split.file: found {path}, which is no file; allowed: one inside data.root")
    return path


def _composed(name: str) -> str:
    """An id in the form that cases have (NFC): macOS decomposes accents."""
    return unicodedata.normalize("NFC", name)
