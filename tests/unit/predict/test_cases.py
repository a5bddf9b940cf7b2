"""Which files of a folder are which case."""

from pathlib import Path

import pydicom
import pytest

from llm4seg.predict.cases import find_cases
from llm4seg.utils.errors import InputError
from tests.dicom import DIRECTIONS, itk_image, save_series


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def ids(root: Path, channels: int = 1) -> dict[str, list[str]]:
    cases, _ = find_cases(root, channels, root / "out")
    return {case.id: [path.name for path in case.files] for case in cases}


def test_files_of_all_folders(tmp_path: Path) -> None:
    touch(tmp_path, "b.nii.gz", "a.PNG", "sub/a.png", "sub/deep/c.tif", "notes.txt", ".hidden.png", ".x/a.png")
    touch(tmp_path, "out/a.png", "out/overlays/b.png", "d.mhd", "d.raw", "Thumbs.db")
    assert ids(tmp_path) == {
        "a": ["a.PNG"],
        "b": ["b.nii.gz"],
        "d": ["d.mhd"],
        "sub/a": ["a.png"],
        "sub/deep/c": ["c.tif"],
    }


def test_channels_in_files_of_their_own(tmp_path: Path) -> None:
    touch(tmp_path, "a_0000.nii.gz", "a_0001.nii.gz", "b_0001.nii.gz", "b_0000.nii.gz", "c.nii.gz")
    assert ids(tmp_path, 2) == {
        "a": ["a_0000.nii.gz", "a_0001.nii.gz"],
        "b": ["b_0000.nii.gz", "b_0001.nii.gz"],
        "c": ["c.nii.gz"],
    }
    cases, _ = find_cases(tmp_path / "b_0001.nii.gz", 2, tmp_path / "out")
    assert [(case.id, len(case.files)) for case in cases] == [("b", 2)]
    # of one channel: numbers that are no channels stay
    assert {"a_0000", "a_0001", "c"} < set(ids(tmp_path))
    (tmp_path / "b_0001.nii.gz").unlink()
    assert {"a_0000", "a_0001", "b", "c"} == set(ids(tmp_path))


def test_a_study_of_several_series(tmp_path: Path) -> None:
    """In folders, and several in one; contours, localizers and what is no image are left out and counted."""
    for name in ("t1", "t2"):
        save_series(tmp_path / "study" / name, itk_image(DIRECTIONS["LPS"]), series="1" if name == "t1" else "2")
    for number in ("5", "6", "7"):
        save_series(tmp_path / "study" / "flat", itk_image(DIRECTIONS["LPS"]), series=number)
    for path in (tmp_path / "study" / "flat").iterdir():
        content = pydicom.dcmread(path)
        content.SeriesNumber = int(path.name[0])
        if path.name.startswith("7"):
            content.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        content.save_as(path.with_suffix("") if path.name.startswith("6") else path)  # an archive's, without endings
        if path.name.startswith("6"):
            path.unlink()
    touch(tmp_path, "study/t1/readme.txt")
    cases, notices = find_cases(tmp_path / "study", 1, tmp_path / "out")
    assert {case.id: len(case.files) for case in cases} == {"flat/series-5": 4, "flat/series-6": 4, "t1": 4, "t2": 4}
    assert all(case.dicom for case in cases)
    assert notices == ["1 DICOM series of other kinds are left out: localizer"]
    (one,), _ = find_cases(tmp_path / "study" / "t1", 1, tmp_path / "out")
    assert (one.id, one.source) == ("t1", str(tmp_path / "study" / "t1"))


def test_files_that_are_named_after_identifiers(tmp_path: Path) -> None:
    save_series(tmp_path / "in", itk_image(DIRECTIONS["LPS"]))
    first, *others = sorted((tmp_path / "in").iterdir())
    for path in others:
        path.unlink()
    first.rename(tmp_path / "in" / f"CT.{pydicom.dcmread(first).SOPInstanceUID}.dcm")
    (case,), _ = find_cases(tmp_path / "in", 1, tmp_path / "out")
    assert case.id == "series-x-1"
    next((tmp_path / "in").iterdir()).rename(tmp_path / "in" / "chest.dcm")
    (case,), _ = find_cases(tmp_path / "in", 1, tmp_path / "out")
    assert case.id == "chest"


def test_what_cannot_be(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.png", "in/a.jpg", "other/notes.txt")
    with pytest.raises(InputError, match=r"in/a.png: its mask would have the name of that of .*in/a.jpg; rename one"):
        find_cases(tmp_path / "in", 1, tmp_path / "out")
    with pytest.raises(InputError, match="other: found no image; allowed: NIfTI, NRRD"):
        find_cases(tmp_path / "other", 1, tmp_path / "out")
    with pytest.raises(InputError, match=r"notes.txt: not an image; allowed: NIfTI"):
        find_cases(tmp_path / "other" / "notes.txt", 1, tmp_path / "out")
    with pytest.raises(InputError, match="nothing: no such file or folder"):
        find_cases(tmp_path / "nothing", 1, tmp_path / "out")
