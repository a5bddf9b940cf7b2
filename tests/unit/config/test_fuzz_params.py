"""params.yaml of any bytes and values: a Config, or an InputError in printable lines; never another exception."""

import copy
import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from llm4seg.config import Config
from llm4seg.config.upgrade import upgrade
from llm4seg.utils.errors import InputError
from pipelines.preset import options
from tests.fuzz import OPTIONS, check_for_minutes
from tests.params import PARAMS, values

CONTENT = PARAMS.read_bytes()
WORDS = [
    "",
    "~",
    "model.llm.layer",
    "preset",
    "when",
    "choice",
    "3-5",
    "9" * 4400,
    "a\nb",
    "\x1b[1m",
    "/",
    "none",
    "LLM4Seg",
]
texts = st.text(max_size=8) | st.sampled_from(WORDS)
scalars = (
    st.none() | st.booleans() | st.integers() | st.sampled_from([-1, 0, 1, 2, 16, 10**400, -(10**30)])
    | st.floats() | texts | st.binary(max_size=4) | st.dates(min_value=datetime.date(1900, 1, 1))
)  # fmt: skip
values_of_any_type = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts | st.integers(), inner, max_size=3)
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """The project's params.yaml with values replaced, keys dropped, added and exchanged, in UTF-8 or not."""
    changed = values()
    for _ in range(draw(st.integers(1, 3))):
        section: Any = changed
        for _ in range(draw(st.integers(0, 4))):
            nested = [one for one in section.values() if isinstance(one, dict) and one]
            section = draw(st.sampled_from(nested)) if nested else section
        name = draw(st.sampled_from(list(section)))
        match draw(st.integers(0, 4)):
            case 0:
                del section[name]
            case 1:
                section[draw(texts | st.integers() | st.none())] = draw(values_of_any_type)
            case 2:
                section[name] = copy.deepcopy(draw(st.sampled_from(list(section.values()))))
            case _:
                section[name] = draw(values_of_any_type)
        if not section:
            break
    text = yaml.dump(changed, allow_unicode=draw(st.booleans()), Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper))
    return text.encode(draw(st.sampled_from(["utf-8"] * 8 + ["utf-16", "utf-8-sig"])), "surrogatepass")


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Any bytes, or the project's params.yaml with some bytes changed, removed or inserted."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace")))
    content = bytearray(CONTENT)
    symbols = st.sampled_from([b"!!set ", b"!!binary ", b"!!timestamp ", b"!!int ", b"&a ", b"*a ", b"- ", b"{", b"? "])
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(content)))
        if draw(st.booleans()):  # where a value begins
            place = content.find(b": ", place) + 2
        content[place : place + draw(st.integers(0, 8))] = draw(st.binary(max_size=8) | symbols)
    return bytes(content)


def check(path: Path, content: bytes) -> None:
    """Load it, compose presets and upgrade it: nothing but an InputError may be raised."""
    for attempt in (
        lambda: Config.load(path),
        lambda: options(path, ["default", "none"]),
        lambda: upgrade(path),
    ):
        path.write_bytes(content)
        try:
            attempt()
        except InputError as refusal:
            message = str(refusal)
        else:
            continue
        unprintable = [line for line in message.split("\n") if not line.isprintable() or len(line) > 2000]
        assert unprintable == []


@settings(**OPTIONS, max_examples=30, derandomize=True)
@given(mutated() | damaged())
def test_some_odd_files(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    check(tmp_path_factory.getbasetemp() / "params.yaml", content)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_many_odd_files(tmp_path: Path) -> None:
    check_for_minutes(lambda content: check(tmp_path / "params.yaml", content), mutated() | damaged())
