"""Where a published data set lies in data.root: a folder, one within it, or the archive as downloaded."""

import io
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from llm4seg.datasets.registry import open_dataset
from llm4seg.utils.errors import InputError
from pipelines.prepare import prepare
from tests import layouts
from tests.finished_run import config_at
from tests.tiny import data_section


def ids(root: Path, dataset: str, cache: Path) -> list[str]:
    return [case.id for case in open_dataset(data_section(root, dataset=dataset), cache).cases]


def refusal(root: Path, dataset: str, cache: Path) -> str:
    with pytest.raises(InputError) as raised:
        ids(root, dataset, cache)
    assert "\n" not in str(raised.value)
    return str(raised.value).replace(str(root), "ROOT")


@pytest.mark.parametrize("ending", ["zip", "tar", "gztar"])
@pytest.mark.parametrize("dataset", layouts.WRITERS)
def test_a_folder_or_its_archive(tmp_path: Path, dataset: str, ending: str) -> None:
    layouts.WRITERS[dataset](tmp_path / "raw")
    cache, within = tmp_path / "cache", tmp_path / "raw"
    expected = ids(within, dataset, cache)
    assert len(expected) > 6
    assert not cache.exists()
    archive = Path(shutil.make_archive(str(tmp_path / "downloaded"), ending, within))
    assert ids(archive, dataset, cache) == expected
    (unpacked,) = (cache / "archives").glob("*/downloaded")
    before = unpacked.stat().st_mtime_ns
    assert ids(archive, dataset, cache) == expected
    assert unpacked.stat().st_mtime_ns == before


def test_another_layout_is_named(tmp_path: Path) -> None:
    layouts.write_kvasir(tmp_path / "a")
    layouts.write_tn3k(tmp_path / "b")
    assert refusal(tmp_path / "a", "busi", tmp_path) == (
        "ROOT: looks like data.dataset: kvasir-seg or folder, allowed for busi: a folder with benign and malignant, or "
        "images/benign (*).png and masks/0, or images/malignant (*).png and masks/0; busi is at https://scholar.cu.edu.eg/?q=afahmy/pages/dataset"
    )
    assert "ROOT: looks like data.dataset: tn3k, allowed for cvc-" in refusal(tmp_path / "b", "cvc-clinicdb", tmp_path)
    for name in ("e", "f", "g", "h"):
        (tmp_path / "none" / name).mkdir(parents=True)
    assert "ROOT: holds e, f, g, ..., allowed for isic: a folder with ISBI2016_ISIC_Part1_Training_Data, or" in refusal(
        tmp_path / "none", "isic", tmp_path
    )


def test_a_root_that_is_missing_or_ambiguous(tmp_path: Path) -> None:
    absent = tmp_path / "absent.zip"
    assert refusal(absent, "busi", tmp_path).startswith("ROOT: no such file or folder (data.root); busi is at https:")
    (tmp_path / "absent.zip.dvc").touch()
    assert "ROOT: no such file or folder (data.root); `dvc pull` fetches it; " in refusal(absent, "busi", tmp_path)
    file = tmp_path / "busi.rar"
    file.touch()
    assert refusal(file, "busi", tmp_path) == (
        "ROOT: found a file, allowed for data.root: a folder, or an archive (.zip, .tar, .tar.gz, .tgz); unpack it "
        "first"
    )
    assert refusal(file, "folder", tmp_path) == refusal(file, "busi", tmp_path)
    for copy in ("a", "b"):
        layouts.write_busi(tmp_path / "two" / copy)
    assert refusal(tmp_path / "two", "busi", tmp_path) == (
        "ROOT: found busi in a/Dataset_BUSI_with_GT and b/Dataset_BUSI_with_GT, allowed: one; name it in data.root"
    )


def test_a_file_in_an_archive_is_named_as_one_of_it(tmp_path: Path) -> None:
    """Not by its place in the cache, which is nobody's business."""
    layouts.write_busi(tmp_path / "raw")
    next((tmp_path / "raw").rglob("benign (2)_mask.png")).write_bytes(b"damaged")
    archive = shutil.make_archive(str(tmp_path / "busi"), "zip", tmp_path / "raw")
    config = config_at(tmp_path, {"data.dataset": "busi", "data.root": archive, "data.size": [16, 16]})
    with pytest.raises(InputError) as raised:
        prepare(config)
    where = f"{archive}/Dataset_BUSI_with_GT/benign/benign (2)_mask.png: "
    assert str(raised.value).startswith(f"{where}cannot be read as an image: ")
    layouts.write_isic(tmp_path / "isic")
    masks = tmp_path / "isic/ISIC2018_Task1_Training_GroundTruth"
    (masks / "ISIC_0000002_segmentation.png").unlink()
    shutil.make_archive(str(masks), "zip", masks)
    shutil.rmtree(masks)
    with pytest.raises(InputError) as raised:
        prepare(config.override({"data.dataset": "isic", "data.root": str(tmp_path / "isic")}))
    assert str(raised.value).endswith(f"an image without a mask in {masks}")


def zipped(path: Path, name: str, mode: int = 0o100644) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        member = zipfile.ZipInfo(name)
        member.external_attr = mode << 16
        file.writestr(member, "/etc/passwd")
    return path


def tarred(path: Path, name: str, kind: bytes = tarfile.REGTYPE) -> Path:
    with tarfile.open(path, "w") as file:
        member = tarfile.TarInfo(name)
        member.type, member.linkname, member.size = kind, "/etc/passwd", 0 if kind == tarfile.SYMTYPE else 1
        file.addfile(member, io.BytesIO(b"x"))
    return path


def test_an_archive_writes_nowhere_else(tmp_path: Path) -> None:
    leaves, link = "a path that leaves its folder", "a link or device"
    for archive, found in (
        (zipped(tmp_path / "a.zip", "../../evil.txt"), f"'../../evil.txt', {leaves}"),
        (zipped(tmp_path / "b.zip", "/evil.txt"), f"'/evil.txt', {leaves}"),
        (zipped(tmp_path / "c.zip", "C:/evil.txt"), f"'C:/evil.txt', {leaves}"),
        (zipped(tmp_path / "d.zip", "benign", 0o120777), f"'benign', {link}"),
        (tarred(tmp_path / "a.tar", "x/../../evil.txt"), f"'x/../../evil.txt', {leaves}"),
        (tarred(tmp_path / "b.tar", "/evil.txt"), f"'/evil.txt', {leaves}"),
        (tarred(tmp_path / "c.tar", "benign", tarfile.SYMTYPE), f"'benign', {link}"),
        (tarred(tmp_path / "d.tar", "benign", tarfile.FIFOTYPE), f"'benign', {link}"),
    ):
        expected = f"ROOT: found {found}, allowed: files and folders below it"
        assert refusal(archive, "busi", tmp_path / "cache") == expected
    assert not [*tmp_path.rglob("evil*")]
    assert not [*(tmp_path / "cache").rglob("*.*")]  # nothing half unpacked


@pytest.mark.parametrize("ending", ["zip", "tar", "gztar"])
def test_a_damaged_archive_leaves_nothing(tmp_path: Path, ending: str) -> None:
    layouts.write_busi(tmp_path / "raw")
    archive = Path(shutil.make_archive(str(tmp_path / "downloaded"), ending, tmp_path / "raw"))
    content = archive.read_bytes()
    for damaged in (content[: len(content) // 2], b"<html>not found</html>", b""):
        archive.write_bytes(damaged)
        message = refusal(archive, "busi", tmp_path / "cache")
        assert message.startswith("ROOT: cannot be unpacked: ")
        assert message.endswith("; download it again")
    assert not [*(tmp_path / "cache").rglob("*downloaded*")]
