"""Ray's token and sockets on machines whose HOME and TMPDIR are no place for them."""

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm4seg.cluster import local_ray
from llm4seg.cluster.local_ray import LONGEST, SOCKET, prepare_token, private_folders, use_private_folders
from llm4seg.utils.errors import InputError


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A HOME of its own, and a short folder of one's own for temporary files; what is set is unset again."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_TMPDIR", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(tempfile, "tempdir", None)
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where a short folder is made."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setattr(local_ray, "SHORT", (folder,))
        yield Path(folder) / f"llm4seg-u{os.getuid()}"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_token_is_its_owners_alone(tmp_path: Path) -> None:
    prepare_token(lacking=True)
    file = tmp_path / ".ray" / "auth_token"
    assert (len(file.read_text()), mode(file)) == (64, 0o600)
    assert "RAY_AUTH_TOKEN" not in os.environ
    file.chmod(0o644)  # as Ray makes it
    before = file.read_text()
    prepare_token(lacking=False)
    assert (file.read_text(), mode(file)) == (before, 0o600)


def test_where_home_cannot_be_written_the_token_is_in_memory(tmp_path: Path) -> None:
    (tmp_path / ".ray").write_text("no folder can be made here, as on a read-only disk")
    prepare_token(lacking=False)
    assert "RAY_AUTH_TOKEN" not in os.environ
    prepare_token(lacking=True)
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64


def path_of(length: int) -> str:
    return "/tmp/" + (length - len("/tmp/")) * "x"


@pytest.mark.parametrize(
    ("length", "expected"),
    [(LONGEST["RAY_TMPDIR"], []), (LONGEST["RAY_TMPDIR"] + 1, ["RAY_TMPDIR"]), (102, ["RAY_TMPDIR", "TMPDIR"])],
)
def test_sockets_that_do_not_fit_in_tmpdir(
    length: int, expected: list[str], short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", path_of(length))
    assert private_folders() == dict.fromkeys(expected, str(short))
    if expected:
        assert mode(short) == 0o700


def test_the_variable_of_ray_comes_first(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", path_of(60))
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    assert private_folders() == {}


@pytest.mark.parametrize("temporary", [None, "/tmp"])
def test_in_a_folder_of_all_users_ray_has_one_of_its_own(
    short: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, temporary: str | None
) -> None:
    """/tmp/ray would be the first user's, and open to all. Nothing need be said; Python's own files stay in /tmp."""
    monkeypatch.delenv("TMPDIR")
    if temporary:
        monkeypatch.setenv("TMPDIR", temporary)
    use_private_folders()
    assert os.environ["RAY_TMPDIR"] == str(short)
    assert mode(short) == 0o700
    assert os.environ.get("TMPDIR") == temporary
    assert caplog.records == []
    assert private_folders() == {}


def test_python_uses_the_short_folder_too(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", path_of(102))
    use_private_folders()
    assert tempfile.gettempdir() == os.environ["RAY_TMPDIR"] == str(short)
    assert len(f"{short}/pymp-12345678/listener-12345678") <= SOCKET


def test_a_folder_that_another_user_could_read_is_not_taken(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short.mkdir()
    short.chmod(0o755)
    monkeypatch.setenv("TMPDIR", path_of(102))
    with pytest.raises(
        InputError, match=r"TMPDIR: found /tmp/x+, allowed: .* at most 32 bytes, .*; set RAY_TMPDIR to one"
    ):
        private_folders()
