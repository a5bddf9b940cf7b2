"""A finished run with its report."""

import shutil
from pathlib import Path

import pytest

from llm4seg.config import Config
from pipelines.report import report
from tests import finished_run as finished
from tests.finished_run import finished_run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A finished run, to read only."""
    config = finished_run(tmp_path_factory.mktemp("run"))
    report(config)
    return config


@pytest.fixture
def copy(run: Config, tmp_path: Path) -> Config:
    """A copy of the finished run, to change."""
    root = run.paths.report.parent.parent
    shutil.copytree(root, tmp_path / "run")
    return finished.config_at(tmp_path / "run", {"data.dataset": "phantom", "model.bottleneck": "identity"})
