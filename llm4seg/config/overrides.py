"""Dotted names of parameters: getting and setting nested values, and their error messages."""

import difflib
import reprlib
from collections.abc import Iterator, Mapping
from typing import Any

from llm4seg.config.earlier import ADDED, UPGRADE, moved
from llm4seg.config.schema import Section
from llm4seg.utils.errors import InputError
from llm4seg.utils.text import elided, printable


def find(values: dict[str, Any], dotted: str) -> tuple[dict[str, Any], str]:
    """The mapping that holds a dotted parameter, and its last name."""
    *parents, name = dotted.split(".")
    section: Any = values
    for parent in parents:
        section = section.get(parent) if isinstance(section, dict) else None
    if not isinstance(section, dict) or name not in section:
        known = list(_dotted_names(values))
        close = difflib.get_close_matches(dotted, known, n=3, cutoff=0.5)
        advice = f"did you mean {' or '.join(close)}?" if close else "see params.yaml"
        raise InputError(printable(f"{elided(dotted, 200)}: no such parameter; {advice}"))
    return section, name


def _dotted_names(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        yield f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _dotted_names(value, f"{prefix}{name}.")


def apply(changes: Mapping[str, Any], values: dict[str, Any]) -> None:
    """Change dotted parameters of nested values in place."""
    try:
        changes = moved(changes)
    except ValueError as error:
        raise InputError(str(error)) from None
    for dotted, value in changes.items():
        section, name = find(values, dotted)
        section[name] = value


def explain(where: str, error: Any) -> str:
    """A validation error in one line: the dotted name, what was found, what is allowed."""
    dotted = printable(elided(".".join(str(part) for part in error["loc"]), 200))
    message = printable(str(error["msg"]).removeprefix("Value error, "))
    if error["type"] == "missing":
        return f"{where}: {dotted} is missing" + (f"; {UPGRADE}" if dotted in ADDED else "")
    if error["type"] == "extra_forbidden":
        return f"{where}: {dotted}: unknown parameter"
    if error["type"] == "value_error" and isinstance(error["input"], dict | Section):
        return f"{where}: {dotted + ': ' if dotted else ''}{message}"
    return f"{where}: {dotted}: found {_FOUND.repr(error['input'])}; {message[0].lower() + message[1:]}"


class _Found(reprlib.Repr):
    """The representation of a value in one line of bounded length."""

    maxlevel, maxdict, maxlist, maxtuple, maxstring, maxlong, maxother = 4, 8, 16, 16, 120, 60, 120

    def repr_int(self, value: int, level: int) -> str:
        return super().repr_int(value, level) if abs(value) < 10**4000 else "a number of more than 4000 digits"


_FOUND = _Found()
