"""Splits by lists and as the released code: which case is where, and what is warned of."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from llm4seg.config import Config
from llm4seg.config.schema import Split as Section
from llm4seg.data.leaks import doubts
from llm4seg.data.predefined import predefined_split
from llm4seg.data.prepared import Case, Prepared, SplitLists
from llm4seg.data.rules import released_split, split_by_rule
from llm4seg.data.split import Split, read_split, write_split
from llm4seg.datasets.cases import slices
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import read_json, write_json
from tests.finished_run import config_at, raw_case, write_cases
from tests.tiny import PARAMS
from tests.unit.data.test_split import case

CONFIG = Config.load(PARAMS)
CLASSES = ("organ", "lesion")
CASES = [case(f"c{number}", f"patient {number // 2}") for number in range(10)]


def section(**changes: Any) -> Section:
    changes = {"rule": "official"} | changes
    return CONFIG.override({f"split.{name}": value for name, value in changes.items()}).split


def ids(text: str) -> tuple[str, ...]:
    """Ids of CASES by their digits."""
    return tuple(f"c{digit}" for digit in text)


def lists(*folds: Mapping[str, str], **parts: str) -> SplitLists:
    by_digits = [{part: ids(digits) for part, digits in one.items()} for one in (parts, *folds)]
    return SplitLists("lists.json", by_digits[0], tuple(by_digits[1:]))


def split_by(of: SplitLists, cases: Sequence[Case] = CASES, **changes: Any) -> Split:
    return predefined_split(cases, CLASSES, of, section(**changes), "the list")


def test_three_lists_are_the_three_parts_in_the_order_of_the_data() -> None:
    split = split_by(lists(train="5410", val="32", test="786"))
    assert (split.train, split.val, split.test) == (ids("0145"), ids("23"), ids("678"))
    assert split.left_out == ids("9")
    assert split.rule == "the list; left out, as in no list: 1"
    assert split.folds == ()


def test_without_a_list_of_val_whole_groups_are_taken_from_train() -> None:
    for seed in range(5):
        split = split_by(lists(train="01234567", test="89"), val=0.25, seed=seed)
        assert split.test == ids("89")
        assert len(split.val) == 2
        assert sorted((*split.train, *split.val)) == list(ids("01234567"))
        groups = [{one.group for one in CASES if one.id in part} for part in (split.train, split.val)]
        assert not groups[0] & groups[1]
        assert split.rule == f"the list; val 0.25 of its train, groups kept together; seed {seed}"
    assert len({split_by(lists(train="01234567", test="89"), val=0.25, seed=seed).val for seed in range(5)}) > 1


def test_without_a_list_of_test_that_of_val_is_the_test_part() -> None:
    split = split_by(lists(train="01234567", val="89"), val=0.25)
    assert split.test == ids("89")
    assert len(split.val) == 2
    assert "its list of val is the test part" in split.rule


@pytest.mark.parametrize(
    ("of", "train", "test"),
    [
        (lists(test="89"), "01234567", "89"),
        (lists(val="89"), "01234567", "89"),
        (lists(train="01234567"), "01234567", "89"),
        (lists(val="45", test="89"), "012367", "89"),
    ],
)
def test_what_no_list_names_is_the_missing_part(of: SplitLists, train: str, test: str) -> None:
    split = split_by(of)
    assert split.test == ids(test)
    fit = split.train if "val" in of.parts and "test" in of.parts else (*split.train, *split.val)
    assert sorted(fit) == list(ids(train))
    assert not split.left_out


def test_a_fold_is_chosen_and_all_are_known() -> None:
    """As nnU-Net writes them: train and val. A fold's val is what is tested, another val is taken from its train."""
    folds = [{"train": "456789", "val": "0123"}, {"train": "012389", "val": "4567"}, {"train": "01234567", "val": "89"}]
    split = split_by(lists(*folds), fold=1)
    assert split.test == ids("4567")
    assert sorted((*split.train, *split.val)) == list(ids("012389"))
    assert split.folds == (ids("0123"), ids("4567"), ids("89"))
    assert split.rule.startswith("the list, fold 1 of 3; its list of val is the test part; val 0.2")


def test_folds_of_one_test_part_share_it() -> None:
    """As TN3K: a training and a test part, and folds of train and val in the former."""
    of = lists({"train": "4567", "val": "0123"}, {"train": "0123", "val": "4567"}, train="01234567", test="89")
    split = split_by(of, fold=1)
    assert (split.train, split.val, split.test) == (ids("0123"), ids("4567"), ids("89"))
    assert split.folds == (ids("89"), ids("89"))
    assert split_by(of).test == ids("89")


def test_slices_follow_their_volume() -> None:
    names = [f"v{volume}" for volume in range(4)]
    cases = [case(f"{name}-{at}", name, volume=name, position=at) for name in names for at in range(3)]
    of = SplitLists("", {"train": ("v0", "v3-1"), "val": ("v1",), "test": ("v2", "v2-0")})
    split = split_by(of, cases)
    assert split.train == ("v0-0", "v0-1", "v0-2", "v3-1")
    assert (split.val, split.test) == (("v1-0", "v1-1", "v1-2"), ("v2-0", "v2-1", "v2-2"))
    assert split.left_out == ("v3-0", "v3-2")
    with pytest.raises(InputError, match=r"found 1 of 2 ids that no case has, .* or of volumes such as 'v0'$"):
        split_by(SplitLists("", {"train": ("v0",), "test": ("v9",)}), cases)
    with pytest.raises(InputError, match=r"^the list: found 'v2-0' in train and in test, allowed: one of them$"):
        split_by(SplitLists("", {"train": ("v0", "v2-0"), "test": ("v2",)}), cases)


MISTAKES: dict[str, tuple[SplitLists, dict[str, Any]]] = {
    r"^the list: found 2 of 4 ids that no case has, the first 'cx' in val; allowed: ids such as 'c0'$": (
        lists(train="01", val="xy"),
        {},
    ),
    r"^the list: found 'c1' in train and in test, allowed: one of them$": (lists(train="01", test="12"), {}),
    r"^the list: found no case in val, as its list is empty; allowed: one or more$": (
        lists(train="01", val="", test="2"),
        {},
    ),
    r"^the list: found no case in train, as the others list every case; ": (lists(test="0123456789"), {}),
    r"^the list: found no case in test, as the others list every case; ": (lists(train="0123456789"), {}),
    r"^split\.fold, study\.folds: found 2, allowed: 0 to 1, the folds of the list$": (
        lists({"val": "0"}, {"val": "1"}),
        {"fold": 2},
    ),
    r"^split\.fold, study\.folds: found 0, allowed: null: the list has no folds$": (lists(test="0"), {"fold": 0}),
    r"^split\.fold: found null, allowed: 0 to 1, the folds of the list$": (lists({"val": "0"}, {"val": "1"}), {}),
    r"^split\.val: found 0\.2, to be taken from the 1 groups in train, as the list lists no val; ": (
        lists(train="01", test="2"),
        {},
    ),
    r"^split\.val: found 0, to be taken from the 2 groups in train, ": (lists(train="02", test="4"), {"val": 0}),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_lists_that_make_no_split_are_refused(message: str) -> None:
    of, changes = MISTAKES[message]
    with pytest.raises(InputError, match=message):
        split_by(of, **changes)


def test_random_is_the_released_codes_split() -> None:
    """The values are those of scikit-learn 1.9.1: train_test_split(ids, test_size=0.3, random_state=seed)."""
    for seed, test in ((0, "248"), (41, "567")):
        split = released_split([*CASES[5:], *CASES[:5]], seed)  # in whatever order they are read
        assert sorted(split.test) == list(ids(test))
        assert split.val == split.test
        assert sorted((*split.train, *split.test)) == list(ids("0123456789"))
    assert len(released_split([case(f"{number:03}", "") for number in range(647)], 3).test) == 195  # as for BUSI
    assert sorted(released_split([case(str(number), "") for number in range(7)], 1024).test) == ["2", "4", "6"]
    with pytest.raises(InputError, match="found random and 1 case"):
        released_split(CASES[:1], 0)


def test_random_says_that_it_leaks(tmp_path: Path) -> None:
    data = prepared(tmp_path)
    split = split_by_rule(data, CONFIG.override({"split.rule": "random", "split.seed": 5}).split)
    assert split.rule == "random, as LLM4Seg's released code: 70 % of the cases train, 30 % are val and test; seed 5"
    assert split.warnings[0].startswith("validation is the test part, ")
    groups = [{data.cases[name].group for name in part} for part in (split.train, split.test)]
    shared = groups[0] & groups[1]
    assert shared
    assert f"(a patient, volume or video) in more than one part: {len(shared)}, such as" in split.warnings[1]
    write_split(tmp_path / "split.json", split)
    assert read_split(tmp_path / "split.json") == split


def prepared(root: Path, **more: Any) -> Prepared:
    """Four volumes of five slices, of two patients."""
    import numpy as np

    config = config_at(root, {"data.size": [16, 16]})
    labels = np.arange(16 * 16 * 5).reshape(16, 16, 5) % 2
    images = [(labels + volume)[None].astype(np.uint8) for volume in range(4)]
    cases = [raw_case(f"v{volume}", labels, images[volume], group="ab"[volume // 2]) for volume in range(4)]
    return write_cases(config, [one for volume in cases for one in slices(volume)], ["organ"])


def test_lists_of_the_manifest(tmp_path: Path) -> None:
    data = prepared(tmp_path)
    with pytest.raises(
        InputError,
        match=r"^split\.rule: found official, but drawn came without a published split \(lists .* belong into the "
        r"folder data\.root: docs/datasets\.md\); allowed: auto, ",
    ):
        split_by_rule(data, section())
    with pytest.raises(InputError, match=r"^split\.file: found a\.txt, which .* has no lists of; allowed: a file in"):
        split_by_rule(data, section(rule="file", file="a.txt"))
    manifest = read_json(data.folder / "manifest.json")
    manifest["official"] = {
        "source": "theirs",
        "parts": {"train": ["v0", "v1"], "val": ["v2"], "test": ["v3"]},
        "folds": [],
    }
    manifest["split_file"] = {"source": "a.txt", "parts": {"test": ["v0"]}, "folds": []}
    write_json(data.folder / "manifest.json", manifest)
    data = Prepared(data.folder)
    official = split_by_rule(data, section())
    assert official.rule == "official split (theirs)"
    assert len(official.train) == 10
    (warning,) = official.warnings
    assert warning.endswith(
        "in more than one part: 1, such as that of 'v3-000' in test and 'v2-000' in val; "
        "0 of the 5 test cases have theirs in train"
    )
    own = split_by_rule(data, section(rule="file", file="a.txt", val=0.5))
    assert own.rule.startswith("split.file (a.txt); val 0.5 of its train")
    assert {name[:2] for name in own.test} == {"v0"}


def test_doubts_are_counted() -> None:
    cases = {one.id: one for one in CASES}
    cases["c9"] = case("c9", "patient 4", sha256="c0")
    cases["c8"] = case("c8", "patient 4", sha256="c1", pixels={"organ": 1, "lesion": 0})
    split = Split("", 0, ids("0123"), ids("45"), ids("6789"), (), ())
    assert doubts(split, cases, CLASSES, "file") == [
        "images, equal in every pixel, in more than one part: 2, such as that of 'c0' in train and 'c9' in test; "
        "2 of the 4 test cases have theirs in train"
    ]
    split = Split("", 0, ids("0246"), ids("1"), ids("357"), ids("89"), ())
    (line,) = doubts(split, cases, CLASSES, "block")
    assert "in more than one part: 4, such as that of 'c0' in train and 'c1' in val; 3 of the 3 test cases" in line
    split = Split("", 0, ids("8"), ids("67"), ids("45"), (), ())
    assert doubts(split, cases, CLASSES, "group") == ["class 'lesion' is in no case of train, so it cannot be learned"]
    one = {name: case(name, "the only one") for name in cases}
    assert doubts(split, one, CLASSES, "auto") == []
    assert len(doubts(split, one, CLASSES, "random")) == 1


def test_a_split_without_warnings_is_written_as_before_there_were_any(tmp_path: Path) -> None:
    write_split(tmp_path / "split.json", split_by(lists(train="0145", val="23", test="678")))
    assert "warnings" not in read_json(tmp_path / "split.json")
