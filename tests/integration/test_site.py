"""The site that `make docs` builds, where MkDocs is installed (`pip install '.[docs]'`)."""

import subprocess
import sys
from pathlib import Path

import pytest

import llm4seg
from tests.import_graph import ROOT


@pytest.mark.slow
def test_the_site_is_built_without_warnings(tmp_path: Path) -> None:
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings")
    config, site = str(ROOT / "docs/site/mkdocs.yml"), tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", config, "--site-dir", str(site)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    api = (site / "docs/api.html").read_text(encoding="utf-8")
    assert [name for name in llm4seg.__all__ if f'id="llm4seg.{name}"' not in api] == []
    assert 'href="docs/package.html"' in (site / "index.html").read_text(encoding="utf-8")
    assert "read_split" in (site / "docs/quickstart.html").read_text(encoding="utf-8")
