"""Outputs appear whole or not at all."""

import errno
import hashlib
from pathlib import Path

import pytest

from llm4seg.utils.errors import InputError
from llm4seg.utils.files import read_json, remove, replacing, replacing_by_name, sha256_file, write_json, write_text


def fill(folder: Path, text: str) -> None:
    folder.mkdir()
    (folder / "file").write_text(text)


def replace_with_half(target: Path, trouble: BaseException) -> None:
    with replacing(target) as partial:
        fill(partial, "half")
        raise trouble


def fill_the_disk(target: Path) -> None:
    """/dev/full is a disk that is always full."""
    with replacing(target) as partial:
        partial.symlink_to("/dev/full")
        partial.write_text("x")


def test_a_file_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file.txt"
    write_text(target, "old")
    write_text(target, "größer")
    assert target.read_text(encoding="utf-8") == "größer"
    assert [path.name for path in target.parent.iterdir()] == ["file.txt"]


def test_a_folder_is_replaced_with_all_that_was_in_it(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    fill(target, "old")
    (target / "only in the old one").touch()
    with replacing(target) as partial:
        fill(partial, "new")
        assert (target / "file").read_text() == "old"
    assert [(path.name, path.read_text()) for path in target.iterdir()] == [("file", "new")]
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("trouble", [KeyboardInterrupt(), ValueError("bad"), OSError(errno.ENOSPC, "disk full")])
def test_trouble_leaves_the_old_one_and_nothing_else(tmp_path: Path, trouble: BaseException) -> None:
    target = tmp_path / "folder"
    fill(target, "old")
    with pytest.raises(type(trouble)):
        replace_with_half(target, trouble)
    assert (target / "file").read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_what_a_killed_process_left_does_not_matter(tmp_path: Path) -> None:
    fill(tmp_path / ".folder.partial", "half written")
    fill(tmp_path / ".folder.old", "half removed")
    fill(tmp_path / "folder", "good")
    with replacing(tmp_path / "folder") as partial:
        fill(partial, "new")
    assert (tmp_path / "folder" / "file").read_text() == "new"
    assert not (tmp_path / ".folder.partial").exists()
    assert not (tmp_path / ".folder.old").exists()


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "file.json"
    write_json(target, [1])
    with pytest.raises(OSError, match="No space left"):
        fill_the_disk(target)
    assert read_json(target) == [1]
    assert list(tmp_path.iterdir()) == [target]


def test_remove(tmp_path: Path) -> None:
    fill(tmp_path / "folder", "text")
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    remove(tmp_path / "link")
    assert (tmp_path / "folder" / "file").exists()
    remove(tmp_path / "folder")
    remove(tmp_path / "folder")
    assert not list(tmp_path.iterdir())


def test_json_for_people(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"b": [1.5, None], "a": "é"})
    assert read_json(path) == {"b": [1.5, None], "a": "é"}
    assert path.read_text().startswith('{\n  "b": [')
    assert path.read_text().endswith("}\n")
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, float("nan"))
    assert read_json(path) == {"b": [1.5, None], "a": "é"}


def test_json_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"file.json: no such file; run the stage that makes it"):
        read_json(tmp_path / "file.json")
    for bad in (b"{", b"\xff\xfe"):
        (tmp_path / "file.json").write_bytes(bad)
        with pytest.raises(InputError, match=r"file.json: not valid JSON"):
            read_json(tmp_path / "file.json")


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc" * 100_000)
    assert sha256_file(tmp_path / "file") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_a_file_whose_writer_looks_at_its_name_is_whole_or_not_there(tmp_path: Path) -> None:
    target = tmp_path / "a.nii.gz"

    def broken_off() -> None:
        with replacing_by_name(target) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    assert not [*tmp_path.iterdir()]
    with replacing_by_name(target) as partial:
        assert partial.name == "a.nii.gz"
        partial.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.nii.gz"]
    assert target.read_text() == "new"
