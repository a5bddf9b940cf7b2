"""Files of lists: texts, JSON by part, nnU-Net's folds, and what is none of these."""

import json
import unicodedata
from pathlib import Path

import pytest

from llm4seg.data.prepared import SplitLists
from llm4seg.datasets.split_file import read_split_file
from llm4seg.utils.errors import InputError


def test_a_text_has_the_ids_of_the_test_part(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    accent = unicodedata.normalize("NFD", "pólip 1")
    (tmp_path / "lists" / "test.txt").write_bytes(f"\ufeffbenign (1)\r\n\r\n  {accent}\t\r\n".encode())
    found = read_split_file(tmp_path, "lists/test.txt")
    assert found == SplitLists("lists/test.txt", {"test": ("benign (1)", unicodedata.normalize("NFC", accent))})
    assert read_split_file(tmp_path, None) is None


def test_texts_for_each_part(tmp_path: Path) -> None:
    for name in ("train", "val"):
        (tmp_path / f"{name}.txt").write_text(f"{name}1\n{name}2\n")
    found = read_split_file(tmp_path, {"train": "train.txt", "val": "val.txt"})
    assert found == SplitLists("train.txt, val.txt", {"train": ("train1", "train2"), "val": ("val1", "val2")})


def test_json_by_part_and_by_fold(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"train": ["a", "b"], "test": ["c"]}')
    assert read_split_file(tmp_path, "a.json") == SplitLists("a.json", {"train": ("a", "b"), "test": ("c",)})
    (tmp_path / "splits_final.JSON").write_text('[{"train": ["a"], "val": ["b"]}, {"train": ["b"], "val": ["a"]}]')
    found = read_split_file(tmp_path, "splits_final.JSON")
    folds = ({"train": ("a",), "val": ("b",)}, {"train": ("b",), "val": ("a",)})
    assert found == SplitLists("splits_final.JSON", {}, folds)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{train}", r"a\.json: not valid JSON: "),
        ("[]", r"a\.json: found no lists of ids, allowed: \{\"train\": \[ids\]"),
        ("{}", r"a\.json: found no lists of ids, allowed: "),
        ("5", r"a\.json: found no lists of ids, allowed: "),
        ('["a", "b"]', r"a\.json: found no lists of ids, allowed: "),
        ('{"training": ["a"]}', r"a\.json: found 'training', allowed: \{\"train\""),
        ('[{"train": ["a"], "val": [3]}]', r"a\.json: found in 'val' what is no list of texts, allowed: "),
        ('{"train": "a"}', r"a\.json: found in 'train' what is no list of texts, allowed: "),
    ],
)
def test_json_of_another_form_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(InputError, match=message) as raised:
        read_split_file(tmp_path, "a.json")
    assert "\n" not in str(raised.value)


def test_a_missing_file_and_one_that_is_no_text_are_named(tmp_path: Path) -> None:
    for name in ("a.txt", "a.json"):
        with pytest.raises(
            InputError, match=rf"^split\.file: found .*/{name}, which is no file; allowed: one inside data\."
        ):
            read_split_file(tmp_path, name)
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe" + "a\n".encode("utf-16-le"))
    with pytest.raises(InputError, match=r"a\.txt: is no text in UTF-8 .* allowed: an id a line, or a \.json file$"):
        read_split_file(tmp_path, {"train": "a.txt"})


def test_an_id_that_is_twice_in_a_list_is_named(tmp_path: Path) -> None:
    """Once as macOS writes it: one of both is meant to be another's."""
    twice = ["a", unicodedata.normalize("NFD", "é"), "b", "é"]
    (tmp_path / "a.txt").write_text("\n".join(twice), encoding="utf-8")
    (tmp_path / "a.json").write_text(json.dumps([{"train": ["a"], "val": ["b"]}, {"train": ["a"], "val": twice}]))
    for file, part in (("a.txt", "test"), ({"train": "a.txt"}, "train"), ("a.json", "val")):
        with pytest.raises(InputError, match=rf"^split\.file: found 'é' twice in {part} of a\..*, allowed: once$"):
            read_split_file(tmp_path, file)
