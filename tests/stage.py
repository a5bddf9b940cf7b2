"""A stage's command in this process: how it ended and what it printed, without the seconds that a new one imports."""

import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.import_graph import ROOT


def run_stage_here(stage: str, params: Path, capsys: pytest.CaptureFixture[str]) -> "subprocess.CompletedProcess[str]":
    """What `python -m pipelines.<stage> --params <params>` does."""
    handler, code, message = signal.getsignal(signal.SIGTERM), 0, ""
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [stage, "--params", str(params)])
        try:
            runpy.run_path(str(ROOT / "pipelines" / f"{stage}.py"), run_name="__main__")
        except SystemExit as end:
            if isinstance(end.code, str):  # Python prints it and exits with 1
                code, message = 1, f"{end.code}\n"
            else:
                code = int(end.code or 0)
        finally:
            signal.signal(signal.SIGTERM, handler)
    shown = capsys.readouterr()
    return subprocess.CompletedProcess([stage], code, shown.out, shown.err + message)
