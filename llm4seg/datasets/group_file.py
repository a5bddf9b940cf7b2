"""`data.folder.groups`: a table of the patients, a line a case, with the columns id and group."""

import csv
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from llm4seg.utils.errors import InputError

COLUMNS = ("id", "group")
ALLOWED = "allowed: a text in UTF-8 with the columns id and group, separated by commas"


def read_groups(path: Path, ids: Sequence[str]) -> dict[str, str]:
    """The group of each case. Spaces around names and values, and other columns, do not matter.

    Raises InputError naming the file and the id for a case without a line, a line without a case, and two lines of one.
    """
    groups: dict[str, str] = {}
    for number, (name, group) in _rows(path).items():
        if not name or not group:
            raise InputError(
                f"{path}: found id {name!r} and group {group!r} in line {number}, allowed: both in each line"
            )
        if name in groups:
            raise InputError(f"{path}: found {name!r} twice, again in line {number}, allowed: a line a case")
        groups[name] = group
    known = set(ids)
    if unknown := [name for name in groups if name not in known]:
        example = f"ids such as {ids[0]!r}" if ids else "none, as there are no cases"
        raise InputError(f"{path}: found {unknown[0]!r}, which no case is ({len(unknown)} such); allowed: {example}")
    if missing := [name for name in ids if name not in groups]:
        raise InputError(
            f"{path}: has no line for the case {missing[0]!r} ({len(missing)} such); allowed: a line a case"
        )
    return groups


def _rows(path: Path) -> dict[int, tuple[str, str]]:
    """Id and group of each line that is not blank, by its number."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"data.folder.groups: found {path}, which is no file; allowed: one inside data.root") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is no text in UTF-8 ({error}); {ALLOWED}") from None
    header = text.partition("\n")[0]
    separator = ";" if header.count(";") > header.count(",") else ","  # where the comma is the decimal sign
    reader = csv.reader(text.splitlines(), delimiter=separator, skipinitialspace=True)
    names = [name.strip().lower() for name in next(reader, [])]
    if any(names.count(column) != 1 for column in COLUMNS):
        raise InputError(f"{path}: found the columns {', '.join(names) or 'none'}; {ALLOWED}")
    places = [names.index(column) for column in COLUMNS]
    rows = {}
    for row in reader:
        if any(value.strip() for value in row):
            name, group = (row[place].strip() if place < len(row) else "" for place in places)
            rows[reader.line_num] = (unicodedata.normalize("NFC", name), unicodedata.normalize("NFC", group))
    return rows
