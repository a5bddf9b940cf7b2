"""What a result is said to come from: which changes of the code name another run."""

import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from llm4seg.utils import provenance
from llm4seg.utils.provenance import MEASURING, PACKAGE, TRAINING, code_digest

# a file in each room that decides neither a training nor a measurement
OUTSIDE = (
    "report/charts.py",
    "cluster/failures.py",
    "search/progress.py",
    "study/verdict.py",
    "llm_sources/sources.py",
    "datasets/folder.py",
    "utils/errors.py",
    "config/overrides.py",
    "tools/model_summary.py",
)


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package's code, to be changed."""
    shutil.copytree(PACKAGE, tmp_path / "llm4seg", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path / "llm4seg")
    return tmp_path / "llm4seg"


def digests() -> tuple[str, str]:
    """Of a training, and of a finished run of a study."""
    digest = code_digest.__wrapped__
    return digest(*TRAINING), digest(*TRAINING, *MEASURING)


def change(file: Path) -> None:
    assert file.is_file()
    file.write_text(file.read_text() + "# another line\n")


def test_runs_stay_valid_when_other_rooms_change(copy: Path) -> None:
    before = digests()
    for name in OUTSIDE:
        change(copy / name)
        assert digests() == before, f"{name} decides no training and no measurement"
    (copy / "report" / "new.py").write_text('"""A new file."""')
    assert digests() == before


def test_what_decides_a_training_names_another_run(copy: Path) -> None:
    trained, measured = digests()
    change(copy / "evaluation" / "summary.py")
    assert digests()[0] == trained
    assert digests()[1] != measured
    change(copy / "training" / "trainer.py")
    assert digests()[0] != trained


def test_libraries_name_another_run_and_a_release_of_this_package_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    before = digests()
    installed = provenance.versions() | {"llm4seg": "9.9.9"}
    monkeypatch.setattr(provenance, "version", lambda name: installed[name])
    assert digests() == before
    installed["torch"] = "0"
    assert digests() != before


def test_a_library_that_is_not_installed_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra `cluster`; where everything is installed, no digest is other than before there were extras."""
    before, complete = digests(), provenance.versions()
    assert complete == {name: version(name) for name in (*provenance.LIBRARIES, "llm4seg")}

    def core_only(name: str) -> str:
        if name in ("ray", "deepspeed"):
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(provenance, "version", core_only)
    assert provenance.versions() == complete | {"ray": "none", "deepspeed": "none"}
    assert digests() != before
