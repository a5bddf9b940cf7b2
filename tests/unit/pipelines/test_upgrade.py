"""The command that brings params.yaml up, and what DVC says of a file that was not."""

import shutil
import sys
from pathlib import Path

import pytest

from llm4seg.config import Config
from llm4seg.utils.errors import InputError
from pipelines.upgrade import main
from tests.import_graph import ROOT

EARLIER = ROOT / "tests" / "fixtures" / "0.1.0" / "params.yaml"


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = Path(shutil.copyfile(EARLIER, tmp_path / "params.yaml"))
    monkeypatch.setattr(sys, "argv", ["upgrade", "--params", str(path)])
    return path


def test_an_earlier_file_is_brought_up_once(params: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"paths.pictures is missing; .* python -m pipelines.upgrade"):
        Config.load(params)
    main()
    shown = capsys.readouterr().out
    assert f"upgrade: {params}: presets.paper-exact: now called released\n" in shown
    assert f"upgrade: {params}: paths.pictures: new, outputs/pictures as before\n" in shown
    assert Config.load(params).paths.pictures == params.parent / "outputs" / "pictures"
    content = params.read_bytes()
    main()
    assert capsys.readouterr().out == f"upgrade: {params}: nothing to do\n"
    assert params.read_bytes() == content
    assert list(params.parent.iterdir()) == [params]


def test_a_file_with_a_mistake_stays_as_it_was(params: Path) -> None:
    wrong = params.read_text().replace("lr: 0.003", "lr: -1")
    params.write_text(wrong)
    with pytest.raises(SystemExit, match=rf"^upgrade: {params}: optimizer.lr: found -1; input should be greater"):
        main()
    assert params.read_text() == wrong


def test_a_file_that_is_not_there(params: Path) -> None:
    params.unlink()
    with pytest.raises(SystemExit, match=rf"^upgrade: {params}: no such file; `llm4seg init DIR`"):
        main()


def test_a_link_stays_one(params: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = tmp_path / "link.yaml"
    link.symlink_to(params)
    monkeypatch.setattr(sys, "argv", ["upgrade", "--params", str(link)])
    main()
    assert link.is_symlink()
    assert Config.load(params)


def test_what_dvc_says_of_an_earlier_file(
    params: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It ends before any command starts, so the command's --help has its words."""
    from dvc.parsing import ResolveError
    from dvc.repo import Repo

    shutil.copyfile(ROOT / "dvc.yaml", params.parent / "dvc.yaml")
    monkeypatch.chdir(params.parent)
    with caplog.at_level("ERROR", logger="dvc"), pytest.raises(ResolveError) as caught:
        _ = Repo.init(no_scm=True).index.stages
    monkeypatch.setattr(sys, "argv", ["upgrade", "--help"])
    with pytest.raises(SystemExit):
        main()
    assert f"ERROR: {caught.value}\n" in capsys.readouterr().out
