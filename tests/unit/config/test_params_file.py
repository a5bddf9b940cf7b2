"""params.yaml as a file: what is no mapping, no YAML or of odd bytes is refused in one line that names it."""

from pathlib import Path

import pytest

from llm4seg.config import Config
from llm4seg.config.params_file import parse
from llm4seg.utils.errors import InputError
from tests.params import PARAMS


@pytest.mark.parametrize("text", ["", "- a list", "just words"])
def test_a_file_that_is_no_mapping(text: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(InputError, match=r"params.yaml: found \w+, allowed: the sections paths, llm, data"):
        Config.load(tmp_path / "params.yaml")


def test_a_file_that_is_no_yaml_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("a: [1")
    with pytest.raises(InputError, match=r"params.yaml: not valid YAML"):
        Config.load(tmp_path / "params.yaml")
    missing = r"elsewhere.yaml: no such file; `llm4seg init DIR` writes a project with one$"
    with pytest.raises(InputError, match=missing):
        Config.load(tmp_path / "elsewhere.yaml")


TITLE = b"title: LLM4Seg"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (PARAMS.read_text().encode("utf-16"), "found other bytes than UTF-8 at 0; save the file as UTF-8"),
        ("report: Müller".encode("latin-1"), "found other bytes than UTF-8 at 9; save the file as UTF-8"),
        (b"a: 2024-13-45", "not valid YAML: month must be in 1..12"),
        (b"a: {b: [1", "not valid YAML: while parsing a flow sequence in"),
        (b"a: !!binary /////w==", "found b'.*', allowed: words, numbers, lists and mappings of them"),
        (b"[" * 300_000, "found more than 5,000 brackets"),
        (b"[" * 5_000, "not valid YAML: "),
        (b"a: {b: 1}\nc: 2\na: {b: 2}", r"not valid YAML: found a twice in .*, line 3, column 1"),
        (b"a: {b: 1, b: 2}", "not valid YAML: found b twice"),
        (b"a: &a {b: *a}", "found more than 50 levels or 100,000 values, maybe by an alias within itself"),
        (b"a: " + b"[" * 100 + b"]" * 100, "found more than 50 levels or 100,000 values"),
        (PARAMS.read_bytes().replace(TITLE, b'title: "a\\0b"'), r"report.title: found 'a\\x00b'; must not hold a NUL"),
        (PARAMS.read_bytes().replace(TITLE, TITLE + b'\n  "a\\nb": 1'), r"report.a\\nb: unknown parameter"),
        (PARAMS.read_bytes().replace(TITLE, b"title: 0x" + b"f" * 5000), "report.title: found a number of more than"),
        (
            PARAMS.read_bytes().replace(b"layer: 14 ", b"layer: 0-99999999999 "),
            "layer: found '0-9*'; must rise, by less",
        ),
        (PARAMS.read_bytes().replace(b"cnn: {preset: none}", b"cnn: {preset: [1]}"), r"arms.cnn.preset: found \[1\]"),
    ],
)
def test_a_file_of_odd_bytes_or_values_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(InputError, match=message) as raised:
        Config.load(tmp_path / "params.yaml")
    assert str(raised.value).isprintable()


def test_numbers_as_dvc_writes_them() -> None:
    """It follows YAML 1.2. Words with digits and an e remain words."""
    found = parse(b"a: 1e-05\nb: -3E4\nc: +2e+3\nd: [5e-1]\ne: 1e\nf: b1e5\ng: 1e5f\nh: '1e5'\ni: 0.00001", "here")
    numbers = {"a": 1e-5, "b": -30000.0, "c": 2000.0, "d": [0.5]}
    assert found == {**numbers, "e": "1e", "f": "b1e5", "g": "1e5f", "h": "1e5", "i": 1e-5}
