"""What needs a package of an extra says in one line which, where it is not installed."""

import subprocess
import sys
from pathlib import Path

import pytest

from llm4seg.cluster.launcher import train
from llm4seg.config import Config
from llm4seg.datasets.image_io import read_image
from llm4seg.utils.errors import InputError
from llm4seg.utils.extras import naming_extras
from pipelines.stage import run_stage
from tests.import_graph import ROOT


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """The module that is the test's parameter cannot be found."""
    module: str = request.param
    for name in [one for one in sys.modules if one.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)


@pytest.mark.parametrize("without", ["ray"], indirect=True)
def test_a_training_on_ray(without: None) -> None:
    config = Config.load(ROOT / "params.yaml").override({"cluster.launcher": "ray"})
    with pytest.raises(InputError, match=r"^cluster\.launcher: ray .*: pip install 'llm4seg\[cluster\]'$"):
        train(config, "train-0")


@pytest.mark.parametrize("without", ["SimpleITK"], indirect=True)
def test_an_image_that_simple_itk_reads(without: None, tmp_path: Path) -> None:
    header = "NRRD0004\ntype: uchar\ndimension: 2\nsizes: 2 2\nencoding: raw\n\n"
    (tmp_path / "image.nrrd").write_bytes(header.encode() + bytes(4))
    with pytest.raises(InputError, match=r"^.*needs SimpleITK, .*: pip install 'llm4seg\[dicom\]'$"):
        read_image(tmp_path / "image.nrrd")


def test_an_llm_on_s3() -> None:
    """In a process of its own: fsspec keeps what it has once imported."""
    code = "import sys; sys.modules['s3fs'] = None; from llm4seg.llm_sources.remote import file_system; "
    done = subprocess.run([sys.executable, "-c", code + "file_system('s3')"], capture_output=True, text=True, cwd=ROOT)
    last = done.stderr.splitlines()[-1]
    assert "llm.source: found s3://, which needs the package s3fs; run `pip install 'llm4seg[s3]'`" in last


@pytest.mark.parametrize("without", ["dvc"], indirect=True)
def test_any_stage(without: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(config: Config) -> None:
        import dvc.repo  # noqa: F401

    monkeypatch.setattr(sys, "argv", ["toy", "--params", str(ROOT / "params.yaml")])
    with pytest.raises(SystemExit, match=r"^toy: this needs dvc, .*: pip install 'llm4seg\[dvc\]'$"):
        run_stage("toy", "A toy.", work)


def test_a_missing_module_of_no_extra_is_a_bug_and_stays_one() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_module"), naming_extras():
        import no_such_module  # type: ignore[import-not-found]  # noqa: F401
