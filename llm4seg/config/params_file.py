"""params.yaml as a file: its values, before they are validated."""

import datetime
import re
from itertools import chain, islice
from pathlib import Path
from typing import Any

import yaml

from llm4seg.config.schema import Sections
from llm4seg.utils.errors import InputError

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C one takes a quarter of the time
PLAIN = (str, int, float, datetime.date, type(None))  # what YAML has beside (bytes, sets) is no parameter's value
BRACKETS = 5_000  # of lists and mappings
DEEPEST, MOST = 50, 100_000  # levels and values of a file: an alias within itself has no end


class _Loader(LOADER):  # type: ignore[misc, valid-type]
    """The safe loader, but for a name that stands twice in a section: the first would be lost without a word."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value]
        for index, (key, _) in enumerate(node.value):
            if key.value in names[:index]:
                raise yaml.MarkedYAMLError(problem=f"found {key.value} twice", problem_mark=key.start_mark)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


# DVC writes 1e-05, a number in YAML 1.2; for PyYAML, which is of 1.1, it is a word
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+e[-+]?\d+$", re.IGNORECASE), [*"-+0123456789"]
)


def read(path: Path) -> dict[str, Any]:
    """The values of params.yaml, unchecked. Raises InputError naming the file where it is no mapping in YAML."""
    try:
        return parse(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; `llm4seg init DIR` writes a project with one") from None


def parse(content: bytes, where: str) -> dict[str, Any]:
    """The values of a file's content. Raises InputError naming `where`."""
    if content.count(b"[") + content.count(b"{") > BRACKETS:  # that deep, libyaml crashes
        raise InputError(f"{where}: found more than {BRACKETS:,} brackets, allowed: a file of parameters")
    try:
        values = yaml.load(content.decode("utf-8"), Loader=_Loader)
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: found other bytes than UTF-8 at {error.start}; save the file as UTF-8") from None
    except Exception as error:  # beside YAMLError whatever int(), float() and date() raise: the file is at fault
        raise InputError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None
    _check_tree(values, where)
    if not isinstance(values, dict):
        raise InputError(
            f"{where}: found {type(values).__name__}, allowed: the sections {', '.join(Sections.model_fields)}"
        )
    return values


def _check_tree(values: Any, where: str) -> None:
    """Raise InputError for values that are not plain or too many, as in a section that is its own alias."""
    level = [values]
    for _ in range(DEEPEST):
        nested = [[*value, *value.values()] if isinstance(value, dict) else value for value in level if _holds(value)]
        for value in level:
            if not isinstance(value, PLAIN) and not _holds(value):
                raise InputError(f"{where}: found {value!r}, allowed: words, numbers, lists and mappings of them")
        level = list(islice(chain.from_iterable(nested), MOST))
        if not level:
            return
        if len(level) == MOST:
            break
    raise InputError(f"{where}: found more than {DEEPEST} levels or {MOST:,} values, maybe by an alias within itself")


def _holds(value: Any) -> bool:
    return isinstance(value, dict | list)
