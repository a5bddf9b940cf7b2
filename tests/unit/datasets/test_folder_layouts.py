"""A user's own folder with more than a pair a case: a file a channel, a table of patients, test images apart."""

import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from llm4seg.config import Config
from llm4seg.config.schema import SECTIONS_ALONE, FolderData
from llm4seg.data.prepared import SplitLists
from llm4seg.data.rules import split_by_rule
from llm4seg.datasets.folder import folder
from llm4seg.datasets.registry import open_dataset
from llm4seg.datasets.writer import write_prepared
from tests.folders import check, opened, read, refusal, write
from tests.import_graph import ROOT
from tests.tiny import PARAMS, data_section


def test_a_file_a_channel_by_the_endings_of_nnunet(tmp_path: Path) -> None:
    """An id may end as a channel does; masks keep their own endings."""
    names = {"p1": "p1.png", "p2_0000": "p2_0000_mask.png", "p3": "p3_segmentation.png"}
    for size, (name, mask) in enumerate(names.items(), start=2):
        write(tmp_path, f"images/{name}_0003.png", f"images/{name}_0000.png")
        write(tmp_path, f"masks/{mask}", value=size)
    cases = read(tmp_path)
    assert list(cases) == list(names)
    for size, (name, case) in enumerate(cases.items(), start=2):
        check(case, [f"images/{name}_0000.png", f"images/{name}_0003.png"], size)
    (tmp_path / "images/p3_0003.png").unlink()
    assert refusal(tmp_path) == (
        "ROOT/images/p3_0000.png: found the channels 0000 of case 'p3', allowed: the channels 0000, 0003, as "
        "of the others"
    )
    (tmp_path / "images/p3_0000.png").unlink()
    assert refusal(tmp_path) == "ROOT/masks/p3_segmentation.png: a mask without an image; ROOT/images has no 'p3'"
    (tmp_path / "masks/p3_segmentation.png").unlink()
    (tmp_path / "masks/p1.png").unlink()
    assert "images/p1_0000.png: an image without a mask; ROOT/masks has no 'p1' (1 such" in refusal(tmp_path)


@pytest.mark.parametrize("ending", ["", "_mask", "_mask_1"])
def test_names_that_end_in_numbers_are_names_as_long_as_masks_have_them(tmp_path: Path, ending: str) -> None:
    for size, name in enumerate(("scan_0000", "scan_0001", "other_0000"), start=2):
        write(tmp_path, f"images/{name}.png")
        write(tmp_path, f"masks/{name}{ending}.png", value=size)
    cases = read(tmp_path)
    assert list(cases) == ["other_0000", "scan_0000", "scan_0001"]
    check(cases["scan_0001"], ["images/scan_0001.png"], 3)
    write(tmp_path, "masks/scan.png", value=2)
    assert refusal(tmp_path) == "ROOT/masks/scan.png: a mask without an image; ROOT/images has no 'scan'"


def test_patients_of_a_table(tmp_path: Path) -> None:
    for name in ("a", "b", "é"):
        write(tmp_path, f"images/{name}_0000.png", f"images/{name}_0001.png")
        write(tmp_path, f"masks/{name}.png", value=2)
    table, accent = tmp_path / "tables" / "patients.csv", unicodedata.normalize("NFD", "é")
    table.parent.mkdir()
    expected = {"a": "p 1", "b": "p2", "é": "p 1"}
    for separator, mark in ((",", "utf-8-sig"), (";", "utf-8")):
        rows = ["ID , Group ,age", 'a, "p 1",7', " b, p2 ,8", "", ",,", f"{accent},p 1,9", ""]  # ID behind the mark
        table.write_text("\r\n".join(rows).replace(",", separator), encoding=mark)
        assert {name: case.group for name, case in read(tmp_path, groups="tables/patients.csv").items()} == expected
    assert opened(tmp_path, groups="tables/patients.csv").notices == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "",
            "ROOT/p.csv: found the columns none; allowed: a text in UTF-8 with the columns id and group, separated by",
        ),
        ("id,patient\na,1\n", "ROOT/p.csv: found the columns id, patient; allowed: a text"),
        ("id,group,group\na,1,1\n", "ROOT/p.csv: found the columns id, group, group; allowed: a text"),
        ("id,group\na,1\n", "ROOT/p.csv: has no line for the case 'b' (1 such); allowed: a line a case"),
        ("id,group\na,1\nb,1\nc,2\nd,2", "ROOT/p.csv: found 'c', which no case is (2 such); allowed: ids such as 'a'"),
        ("id,group\na,1\nb\n", "ROOT/p.csv: found id 'b' and group '' in line 3, allowed: both in each line"),
        ("id,group\na,1\n,2\n", "ROOT/p.csv: found id '' and group '2' in line 3, allowed: both in each line"),
        ("id,group\na,1\nb,1\na,2\n", "ROOT/p.csv: found 'a' twice, again in line 4, allowed: a line a case"),
        (b"id,group\na,\xff\n", "ROOT/p.csv: is no text in UTF-8 ("),
        (None, "data.folder.groups: found ROOT/p.csv, which is no file; allowed: one inside data.root"),
    ],
)
def test_tables_that_cannot_be(tmp_path: Path, text: str | bytes | None, message: str) -> None:
    for name in ("a", "b"):
        write(tmp_path, f"images/{name}.png")
        write(tmp_path, f"masks/{name}.png", value=2)
    if text is not None:
        (tmp_path / "p.csv").write_bytes(text.encode() if isinstance(text, str) else text)
    assert refusal(tmp_path, groups="p.csv").startswith(message)


@pytest.mark.parametrize("ending", ["zip", "gztar"])
@pytest.mark.parametrize("around", [False, True])
@pytest.mark.parametrize("patterns", [{}, {"image": "{id}/t1.png", "mask": "{id}/seg.png"}])
def test_an_archive_is_read_as_its_folder(tmp_path: Path, ending: str, around: bool, patterns: dict[str, str]) -> None:
    """With a folder around the files or without, and what macOS adds; tables and test images lie in it, too."""
    root = tmp_path / "own"
    write_with_test(root, patterns.get("image", "images/{id}.png"), patterns.get("mask", "masks/{id}.png"))
    (root / "p.csv").write_text("\n".join(["id,group", *(f"c{number},p{number // 2}" for number in range(8))]))
    options = {f"folder.{name}": value for name, value in {**patterns, "test": "held/out", "groups": "p.csv"}.items()}
    expected = {case.id: case for case in folder(data_section(root, **options)).cases}
    if around:
        write(tmp_path, "__MACOSX/own/._c1.png")
    where = {"root_dir": str(tmp_path), "base_dir": "."} if around else {"root_dir": str(root)}
    archive = Path(shutil.make_archive(str(tmp_path.parent / f"{tmp_path.name}-own"), ending, **where))
    dataset = open_dataset(data_section(archive, **options), tmp_path / "cache")
    cases = {case.id: case for case in dataset.cases}
    assert cases.keys() == expected.keys()
    for name, case in cases.items():
        assert (case.group, case.source) == (expected[name].group, expected[name].source)
        assert np.array_equal(case.image, expected[name].image)
        assert np.array_equal(case.labels, expected[name].labels)
    assert dataset.official == SplitLists("data.folder.test: held/out", {"test": ("c6", "c7")})


def write_with_test(root: Path, image: str, mask: str) -> None:
    """Six cases, and two for the test in a folder of their own."""
    for number in range(8):
        below = root / "held/out" if number > 5 else root
        write(below, image.replace("{id}", f"c{number}"))
        write(below, mask.replace("{id}", f"c{number}"), value=2 + number % 3)


@pytest.mark.parametrize("patterns", [{}, {"image": "{id}/t1.png", "mask": "{id}/seg.png"}])
def test_test_images_in_a_folder_of_their_own(tmp_path: Path, patterns: dict[str, str]) -> None:
    """They are the official test part; with another rule they are split like all others, which is said."""
    root = tmp_path / "raw"
    write_with_test(root, patterns.get("image", "images/{id}.png"), patterns.get("mask", "masks/{id}.png"))
    options = {f"folder.{name}": value for name, value in {**patterns, "test": "held/out"}.items()}
    section = data_section(root, **options)
    dataset = folder(section)
    assert dataset.official == SplitLists("data.folder.test: held/out", {"test": ("c6", "c7")})
    prepared = write_prepared(dataset, section, tmp_path / "prepared")
    assert sorted(prepared.cases) == [f"c{number}" for number in range(8)]
    assert prepared.cases["c7"].source.startswith("held/out/")
    config = Config.load(PARAMS)
    split = split_by_rule(prepared, config.override({"split.rule": "official"}, SECTIONS_ALONE).split)
    assert split.test == ("c6", "c7")
    assert sorted((*split.train, *split.val)) == [f"c{number}" for number in range(6)]
    assert len(split.val) >= 1
    said = "the 2 cases of data.folder.test: held/out are split like all others, as split.rule is {}; official makes"
    assert not any("data.folder.test" in line for line in split.warnings)
    for rule in ("group", "random"):
        warnings = split_by_rule(prepared, config.override({"split.rule": rule}, SECTIONS_ALONE).split).warnings
        assert any(line.startswith(said.format(rule)) for line in warnings)


def test_without_a_folder_of_test_images_nothing_is_official(tmp_path: Path) -> None:
    write_with_test(tmp_path, "images/{id}.png", "masks/{id}.png")
    assert opened(tmp_path).official is None
    assert len(read(tmp_path)) == 6
    assert len(read(tmp_path, image="*/{id}.png", mask="masks/{id}.png", test="held/out")) == 8


def test_patterns_find_no_test_images_among_the_others(tmp_path: Path) -> None:
    """Its folders could be images: of DICOM."""
    for name in ("p1", "test/p2"):
        write(tmp_path, f"{name}/ct.png")
        write(tmp_path, f"{name}/seg.png", value=3)
    cases = read(tmp_path, image="{id}/*", mask="{id}/seg.png", test="test")
    assert {name: case.source for name, case in cases.items()} == {"p1": "p1/ct.png", "p2": "test/p2/ct.png"}


def test_folders_of_test_images_that_cannot_be(tmp_path: Path) -> None:
    write(tmp_path, "images/a.png")
    write(tmp_path, "masks/a.png", value=2)
    assert refusal(tmp_path, test="test") == (
        "data.folder.test: found ROOT/test, which is no folder; allowed: one inside data.root"
    )
    (tmp_path / "test/images").mkdir(parents=True)
    assert refusal(tmp_path, test="test") == "ROOT/test/masks: no such folder (data.root must hold images/ and masks/)"
    (tmp_path / "test/masks").mkdir()
    assert refusal(tmp_path, test="test") == (
        "data.folder.test: found no image in ROOT/test; allowed: one or more, with masks"
    )
    write(tmp_path, "test/images/b_0000.png", "test/images/b_0001.png")
    write(tmp_path, "test/masks/b.png", value=2)
    assert refusal(tmp_path, test="test") == (
        "ROOT/test/images/b_0000.png: found the channels 0000, 0001 of case 'b', allowed: one file for all channels, "
        "as of the others"
    )
    write(tmp_path, "test2/images/a.png")
    write(tmp_path, "test2/masks/a.png", value=2)
    assert refusal(tmp_path, test="test2") == (
        "ROOT/test2/images/a.png: duplicate case id 'a', also ROOT/images/a.png; rename one, or delete it if it is the "
        "same image"
    )


def test_a_table_and_a_regular_expression_reach_test_images(tmp_path: Path) -> None:
    write_with_test(tmp_path, "images/{id}.png", "masks/{id}.png")
    lines = [f"c{number},p{number % 2}" for number in range(8)]
    (tmp_path / "p.csv").write_text("\n".join(["id,group", *lines]))
    by_table = read(tmp_path, groups="p.csv", test="held/out")
    assert {name: case.group for name, case in by_table.items()} == {f"c{n}": f"p{n % 2}" for n in range(8)}
    (tmp_path / "p.csv").write_text("\n".join(["id,group", *lines[:6]]))
    assert "p.csv: has no line for the case 'c6' (2 such)" in refusal(tmp_path, groups="p.csv", test="held/out")
    assert {case.group for case in read(tmp_path, group="^(.)", test="held/out").values()} == {"c"}


@pytest.mark.parametrize("name", ["data/raw/README.md", "docs/datasets.md"])
def test_every_parameter_is_described(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert [one for one in FolderData.model_fields if f"`data.folder.{one}`" not in text] == []
