"""The tests of infra/ run again when something changes that decides how they end, and else they do not."""

from pathlib import Path

import pytest

from tests import infra_digest
from tests.infra_digest import deciding_files, digest, main

SOURCES = {
    "infra/a.py": "from llm4seg.utils.b import f",
    "infra/file.yaml": "a: 1",
    "llm4seg/__init__.py": "",
    "llm4seg/utils/b.py": "def f():\n    import llm4seg.config.c",
    "llm4seg/config/c.py": "",
    "llm4seg/models/d.py": "",
    "tests/infra/test_a.py": "import infra.a\nfrom tests import helper",
    "tests/helper.py": "import llm4seg.models.d\nimport tests.other",
    "tests/other.py": "",
    "tests/unit/test_e.py": "",
    "docs/cloud.md": "",
    "requirements.lock": "",
}
UNIMPORTANT = {"llm4seg/models/d.py", "tests/unit/test_e.py", "docs/cloud.md"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small project."""
    for name, text in SOURCES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_what_is_imported_decides_however_far(root: Path) -> None:
    found = {file.relative_to(root).as_posix() for file in deciding_files(root)}
    assert found == set(SOURCES) - UNIMPORTANT


def test_a_byte_in_a_deciding_file_changes_the_digest_and_no_other(root: Path) -> None:
    before = digest(root)
    for name, text in SOURCES.items():
        (root / name).write_text(f"{text}\n#")
        assert (digest(root) == before) is (name in UNIMPORTANT), name
        (root / name).write_text(text)
    (root / "infra" / "new.py").touch()
    assert digest(root) != before


def test_written_once_the_tests_have_passed(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(infra_digest, "ROOT", root)
    monkeypatch.setattr(infra_digest, "digest", lambda: digest(root))
    assert main(["--check"]) == 1
    assert main(["--write"]) == 0
    assert main(["--check"]) == 0
    (root / "infra" / "file.yaml").write_text("a: 2")
    assert main(["--check"]) == 1
    assert "changed since the tests of tests/infra passed last" in capsys.readouterr().out


def test_this_project_has_what_its_tests_need() -> None:
    names = {file.relative_to(infra_digest.ROOT).as_posix() for file in deciding_files()}
    expected = {"infra/aws.yaml", "infra/nodes/setup.sh", "llm4seg/config/config.py", "tests/servers.py"}
    assert expected <= names
    assert not [name for name in names if name.startswith(("docs/", "tests/unit/", "llm4seg/report/"))]
