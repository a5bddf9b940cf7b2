"""A user's own images and masks, paired by patterns of their paths."""

import re
import unicodedata
from pathlib import Path

import nibabel
import numpy as np
import pytest

from llm4seg.datasets.folder import folder
from llm4seg.utils.errors import InputError
from tests.folders import check, mask_of, opened, read, refusal, write
from tests.import_graph import ROOT
from tests.tiny import data_section
from tests.unit.datasets.test_itk_io import DIRECTIONS, VALUES, itk_image, save_series


@pytest.mark.parametrize(
    ("image", "mask", "images", "masks"),
    [
        ("img{id}.png", "label{id}.png", ["img01.png", "img2 b.png"], ["label01.png", "label2 b.png"]),
        ("i/img{id}.png", "m/{id}-*.png", ["i/img01.png", "i/img2 b.png"], ["m/01-anna.png", "m/2 b-x.png"]),
        ("{id}/t1.png", "{id}/seg.png", ["01/t1.png", "2 b/t1.png"], ["01/seg.png", "2 b/seg.png"]),
        ("{id}/{id}_t1.png", "*/{id}_s.png", ["01/01_t1.png", "2 b/2 b_t1.png"], ["01/01_s.png", "x/2 b_s.png"]),
        ("{id}.png", "{id}_seg.png", ["01.png", "2 b.png"], ["01_seg.png", "2 b_seg.png"]),  # it finds masks, too
        ("{id}/*.png", "{id}/seg.png", ["01/a.png", "2 b/c.png"], ["01/seg.png", "2 b/seg.png"]),
        ("img{id}.png", "{id}.png", ["img01.png", "img2 b.png"], ["01.png", "2 b.png"]),  # the mask's finds images, too
        (
            "a[1](b)+{id}.png",
            "a[1](b)-{id}.png",
            ["a[1](b)+01.png", "a[1](b)+2 b.png"],
            ["a[1](b)-01.png", "a[1](b)-2 b.png"],
        ),
    ],
)
def test_pairs_by_pattern(tmp_path: Path, image: str, mask: str, images: list[str], masks: list[str]) -> None:
    write(tmp_path, *images)
    for size, name in enumerate(masks, start=2):
        write(tmp_path, name, value=size)
    for junk in ("._img01.png", "notes.txt", "Thumbs.db", "x/y/z/img03.png"):
        (tmp_path / junk).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / junk).write_bytes(b"junk")
    cases = read(tmp_path, image=image, mask=mask)
    assert list(cases) == ["01", "2 b"]
    for size, (name, case) in enumerate(zip(images, cases.values(), strict=True), start=2):
        check(case, [name], size)
        assert (case.source, case.group) == (name, case.id)


def test_patterns_find_names_however_accents_are_composed(tmp_path: Path) -> None:
    write(tmp_path, unicodedata.normalize("NFD", "é1-bild.png"))
    write(tmp_path, "é1-maske.png", value=3)
    decomposed = unicodedata.normalize("NFD", "é{id}-bild.png")
    assert list(read(tmp_path, image=decomposed, mask="é{id}-maske.png")) == ["1"]


def test_a_placeholder_is_the_same_text_wherever_it_stands(tmp_path: Path) -> None:
    write(tmp_path, "a/a_t1.png", "a/b_t1.png")
    write(tmp_path, "a/seg.png", value=2)
    assert list(read(tmp_path, image="{id}/{id}_t1.png", mask="{id}/seg.png")) == ["a"]


def test_what_patterns_do_not_find_is_named(tmp_path: Path) -> None:
    patterns = {"image": "scans/img{id}.png", "mask": "scans/label{id}.png"}
    assert refusal(tmp_path / "none", **patterns) == "ROOT: no such folder (data.root must hold scans/img{id}.png)"
    write(tmp_path, "readme.png", "scans/image1.png", "scans/image2.png")
    assert refusal(tmp_path, image="slices/img{id}.png", mask="{id}.png") == (
        "data.folder.image: found no slices/img{id}.png in ROOT; ROOT holds readme.png, scans"
    )
    assert refusal(tmp_path, **patterns) == (
        "data.folder.image: found no scans/img{id}.png in ROOT; ROOT/scans holds image1.png, image2.png"
    )
    write(tmp_path, "scans/img1.png", "scans/img2.png", "scans/img3.png")
    assert refusal(tmp_path, **patterns).startswith(
        "data.folder.mask: found no scans/label{id}.png in ROOT; ROOT/scans"
    )
    write(tmp_path, "scans/label1.png", value=2)
    assert refusal(tmp_path, **patterns) == (
        "ROOT/scans/img2.png: an image without a mask; ROOT has no scans/label2.png (2 such images; nothing to segment "
        "is a mask of zeros)"
    )
    write(tmp_path, "scans/label2.png", "scans/label3.png", "scans/label4.png", value=2)
    assert refusal(tmp_path, **patterns) == (
        "ROOT/scans/label4.png: a mask without an image; ROOT has no scans/img4.png"
    )


def test_two_files_of_a_case_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "a/1.png", "b/1.png")
    write(tmp_path, "seg1.png", "x-seg1.png", value=2)
    duplicate = "ROOT/b/1.png: duplicate case id '1', also ROOT/a/1.png"
    assert refusal(tmp_path, image="*/{id}.png", mask="seg{id}.png") == duplicate
    assert refusal(tmp_path, image="a/{id}.png", mask="*seg{id}.png") == (
        "ROOT/x-seg1.png: duplicate case id '1', also ROOT/seg1.png"
    )
    assert refusal(tmp_path, image="a/{id}.png", mask="{id}/1.png") == (
        "ROOT/a/1.png: found by data.folder.image, a/{id}.png, and data.folder.mask, {id}/1.png; allowed: patterns "
        "that tell images from masks"
    )


INSIDE = "must be a path inside data.root"
OTHER = "allowed: a pattern with {id} too, or null for both"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": "img{id}.png"}, f"data.folder: mask: found null beside image: img{{id}}.png; {OTHER}"),
        ({"mask": "img{id}.png"}, f"data.folder: image: found null beside mask: img{{id}}.png; {OTHER}"),
        ({"image": "a.png", "mask": "{id}"}, f"data.folder.image: found 'a.png'; {INSIDE}, with {{id}} for the case's"),
        ({"image": "/a/{id}", "mask": "{id}"}, f"data.folder.image: found '/a/{{id}}'; {INSIDE}"),
        ({"image": "{id}", "mask": "../{id}"}, f"data.folder.mask: found '../{{id}}'; {INSIDE}"),
        ({"image": "{id}/{name}", "mask": "{id}"}, f"data.folder.image: found '{{id}}/{{name}}'; {INSIDE}"),
        ({"image": "**/{id}", "mask": "{id}"}, f"data.folder.image: found '**/{{id}}'; {INSIDE}"),
        ({"image": "{id}{channel}", "mask": "{id}"}, "must have a text between {id} and {channel}, which tells where"),
        (
            {"image": "{id}_{channel}", "mask": "{id}-{channel}"},
            "mask: found {id}-{channel}, allowed: {id} alone; {cha",
        ),
        (
            {"group": "(a)", "groups": "g.csv"},
            "data.folder: groups: found g.csv beside group: (a); allowed: one of them",
        ),
        ({"groups": "../g.csv"}, f"data.folder.groups: found '../g.csv'; {INSIDE}, relative to it"),
        ({"test": "."}, f"data.folder.test: found '.'; {INSIDE}, relative to it"),
    ],
)
def test_parameters_that_cannot_be(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    with pytest.raises(InputError) as raised:
        opened(tmp_path, **changes)
    assert message in str(raised.value)
    assert "data.folder" in str(raised.value)


def test_an_id_is_as_long_as_possible(tmp_path: Path) -> None:
    write(tmp_path, "p_1_t1.png", "p_1_t2.png")
    write(tmp_path, "p_1-mask.png", value=2)
    (case,) = read(tmp_path, image="{id}_{channel}.png", mask="{id}-mask.png").values()
    check(case, ["p_1_t1.png", "p_1_t2.png"], 2)
    assert case.id == "p_1"


def test_a_file_a_channel_by_pattern(tmp_path: Path) -> None:
    for size, name in enumerate(("p1", "p_2"), start=2):
        write(tmp_path, *(f"{name}/{channel}.png" for channel in ("t1", "flair")))
        write(tmp_path, f"{name}/seg.png", value=size)
    patterns = {"image": "{id}/{channel}.png", "mask": "{id}/seg.png"}
    cases = read(tmp_path, **patterns)
    assert list(cases) == ["p1", "p_2"]
    for size, (name, case) in enumerate(cases.items(), start=2):
        check(case, [f"{name}/flair.png", f"{name}/t1.png"], size)
    write(tmp_path, "p3/t1.png", "p3/flair.png", "p3/t2.png")
    write(tmp_path, "p3/seg.png", value=2)
    assert refusal(tmp_path, **patterns) == (
        "ROOT/p3/flair.png: found the channels flair, t1, t2 of case 'p3', allowed: the channels flair, t1, as of the "
        "others"
    )


def test_patterns_of_volumes(tmp_path: Path) -> None:
    """A folder of DICOM files may be an image, beside a NIfTI file of another channel."""
    image, affine = itk_image(DIRECTIONS["LPS"]), np.diag([-0.5, -0.75, 3.0, 1.0])
    affine[:3, 3] = -10, 20, 30  # ITK's origin, in RAS
    for name in ("p1", "p2"):
        save_series(tmp_path / name / "ct", image)
        nibabel.save(nibabel.Nifti1Image(VALUES.T + 1, affine), tmp_path / name / "pet.nii.gz")
        mask = (VALUES.T > 0).astype(np.uint8)
        nibabel.save(nibabel.Nifti1Image(mask, affine), tmp_path / name / "seg.nii.gz")
    changes = {"folder.image": "{id}/{channel}*", "folder.mask": "{id}/seg.nii.gz", "classes": {"lesion": [1]}}
    cases = list(folder(data_section(tmp_path, 3, **changes)).cases)
    assert [case.id for case in cases] == ["p1", "p2"]
    for case in cases:
        rows_columns_slices = np.moveaxis(VALUES, 0, -1)  # LPS: rows run to the back; columns to the left
        assert np.array_equal(case.image, np.stack([rows_columns_slices, rows_columns_slices + 1])[:, :, ::-1])
        assert np.array_equal(case.labels, rows_columns_slices[:, ::-1] > 0)
        assert case.notices == ()


def test_the_readmes_patterns_read_its_files(tmp_path: Path) -> None:
    """Each line of the table of patterns, with pictures in the place of volumes."""
    text = (ROOT / "data/raw/README.md").read_text(encoding="utf-8").replace(".nii.gz", ".png")
    lines = [line for line in text.splitlines() if line.startswith("| `") and "{id}" in line]
    assert len(lines) == 4
    for number, line in enumerate(lines):
        root = tmp_path / str(number)
        *names, image, mask = re.findall(r"`\"?(.+?)\"?`", line)
        write(root, *names[:-1])
        write(root, names[-1], value=3)
        (case,) = read(root, image=image, mask=mask).values()
        assert len(case.image) == len(names) - 1
        assert np.array_equal(case.labels, mask_of(3) // 255)
