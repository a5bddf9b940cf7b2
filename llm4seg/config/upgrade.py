"""The upgrade of an earlier version's params.yaml: only what must change is changed, every other byte stays."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from llm4seg.config.config import Config
from llm4seg.config.earlier import ADDED, MOVED, PRESETS, moved, renamed
from llm4seg.config.params_file import parse, read
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import write_text

Position = tuple[int, int]  # line and column, from 0


def upgrade(path: Path) -> list[str]:
    """Upgrade a params.yaml in place, atomically; returns a line for each change.

    Raises InputError where the file has other mistakes; the file is then unchanged.
    """
    path = path.resolve()
    read(path)  # first, since ruamel's loader takes more
    try:
        after, changes = upgraded(path.read_bytes().decode("utf-8"))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if changes:
        Config.parse(parse(after.encode(), str(path)), str(path))
        write_text(path, after)
    return changes


def upgraded(text: str) -> tuple[str, list[str]]:
    """The text of a params.yaml with renamed values replaced and new parameters inserted; a line for each change.

    Raises InputError where the text is not YAML, or has a value in a notation that cannot be changed in place.
    """
    done: list[str] = []
    while change := next(_changes(_read(text), text), None):  # one at a time: each moves the text after it
        text, line = change
        done.append(line)
    return text, done


def _read(text: str) -> CommentedMap:
    try:
        values = YAML().load(text)
    except Exception as error:  # beside YAMLError whatever its constructors raise: the file is at fault
        raise InputError(f"not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, CommentedMap):
        raise InputError(f"found {type(values).__name__}, allowed: the sections {', '.join(Config.model_fields)}")
    return values


def _changes(values: CommentedMap, text: str) -> Iterator[tuple[str, str]]:
    """For each change that is due: the text after this change alone, and a line that describes it."""
    presets = values.get("presets")
    for was, now in PRESETS.items():
        if isinstance(presets, CommentedMap) and was in presets and now not in presets:
            yield _replaced(text, presets.lc.key(was), was, now), f"presets.{was}: now called {now}"
    for name, word, position in _words(values):
        if (now := renamed(word, name)) != word:
            yield _replaced(text, position, word, now), f"{name}: {word} is now called {now}"
    yield from _moves(values, text)
    for dotted, (value, comment) in ADDED.items():
        section, missing = _section(values, dotted)
        if section is not None and missing not in section:
            yield _inserted(text, section, dotted, value, comment), f"{dotted}: new, {value} as before"


def _moves(values: CommentedMap, text: str) -> Iterator[tuple[str, str]]:
    """As `_changes`, for each parameter of MOVED."""
    for old, new in MOVED.items():
        holder, was = _section(values, old)
        section, name = _section(values, new)
        if holder is None or section is None or was not in holder or name in section:
            continue
        plain = parse(text.encode(), "")
        value = _at(moved(plain), new)
        shortened = _without(text, holder, was)
        line = f"{old}: now {new}" if value == _at(plain, old) else f"{old}: now {new}, null for this data.dataset"
        yield _inserted(shortened, _section(_read(shortened), new)[0] or section, new, value, ADDED[new][1]), line


def _at(values: Any, dotted: str) -> Any:
    for name in dotted.split("."):
        values = values[name]
    return values


def _without(text: str, section: CommentedMap, name: str) -> str:
    """The text without a parameter: in block style its line and those indented deeper, in flow style up to the next."""
    line, column = section.lc.key(name)
    lines = text.splitlines(keepends=True)
    if not section.fa.flow_style():
        end = line + 1
        while end < len(lines) and re.match(rf" {{{column + 1}}}", lines[end]):
            end += 1
        return "".join([*lines[:line], *lines[end:]])
    names = [*section]
    following = names[names.index(name) + 1 :]
    if not following:
        raise InputError(f"line {line + 1}: {name} has another place now, from which it cannot be moved here")
    last, until = section.lc.key(following[0])
    return "".join([*lines[:line], lines[line][:column] + lines[last][until:], *lines[last + 1 :]])


def _words(node: Any, name: str = "") -> Iterator[tuple[str, str, Position]]:
    """Every string in nested values: the name of its parameter (for `renamed`), the string, and its position."""
    if isinstance(node, CommentedMap):
        entries = [(name if key == "choice" else f"{name}.{key}".lstrip("."), key) for key in node]
        at = node.lc.value
    elif isinstance(node, CommentedSeq):
        entries = [(name, number) for number in range(len(node))]
        at = node.lc.item
    else:
        return
    for entry, key in entries:
        if isinstance(node[key], str):
            yield entry, node[key], at(key)
        else:
            yield from _words(node[key], entry)


def _section(values: CommentedMap, dotted: str) -> tuple[CommentedMap | None, str]:
    """The section of a dotted parameter, None where it is absent; and the parameter's last name."""
    *parents, name = dotted.split(".")
    section: Any = values
    for parent in parents:
        section = section.get(parent) if isinstance(section, CommentedMap) else None
    return section if isinstance(section, CommentedMap) and section else None, name


def _replaced(text: str, position: Position, was: str, now: str) -> str:
    """The text with `was` at a position replaced by `now`; quotes stay."""
    line, column = position
    lines = text.splitlines(keepends=True)
    match = re.compile(rf"(['\"]?){re.escape(was)}(?=\1)").match(lines[line], column)
    if match is None:
        raise InputError(f"line {line + 1}: found {was}, which cannot be changed here; write {now} instead")
    lines[line] = lines[line][:column] + match[1] + now + lines[line][match.end() :]
    return "".join(lines)


def _inserted(text: str, section: CommentedMap, dotted: str, value: Any, comment: str) -> str:
    """The text with a new parameter in its section: before its successor in the schema, else before the last."""
    name = dotted.split(".")[-1]
    line, column = section.lc.key(_next_in_schema(section, dotted))
    lines = text.splitlines(keepends=True)
    if section.fa.flow_style():
        lines[line] = f"{lines[line][:column]}{_flow(name, value)}, {lines[line][column:]}"
        return "".join(lines)
    while line and re.match(rf" {{{column}}}#", lines[line - 1]):  # comments in line with a key stand above it
        line -= 1
    first, *rest = _block(name, value)
    lines[line:line] = [f"{' ' * column}{one}\n" for one in [f"{first}   # {comment}", *rest]]
    return "".join(lines)


def _block(name: str, value: Any) -> list[str]:
    """The lines of a parameter in YAML's block style."""
    if not isinstance(value, dict) or not value:
        return [_flow(name, value)]
    return [f"{name}:", *(f"  {line}" for key, one in value.items() for line in _block(key, one))]


def _flow(name: str, value: Any) -> str:
    return str(yaml.safe_dump({name: value}, default_flow_style=True, sort_keys=False, width=float("inf")))[1:-2]


def _next_in_schema(section: CommentedMap, dotted: str) -> str:
    """The parameter of a section before which a new parameter is inserted."""
    *parents, name = dotted.split(".")
    schema: Any = Config
    for parent in parents:
        schema = schema.model_fields[parent].annotation
    names = list(schema.model_fields)
    following = [one for one in names[names.index(name) + 1 :] if one in section]
    return following[0] if following else list(section)[-1]
