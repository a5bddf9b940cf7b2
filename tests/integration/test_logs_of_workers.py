"""The level of a command's log lines arrives in the processes that Ray starts for it."""

import subprocess
import sys

import pytest

from tests.import_graph import ROOT

SCRIPT = """
import sys
from pathlib import Path
import ray
from llm4seg.cluster.session import ray_session
from llm4seg.config import Config
from llm4seg.utils import logs

def level_in_worker():
    import logging, os
    before = os.environ.get(logs.VARIABLE)
    logs.configure_child()
    return before, logging.getLevelName(logging.getLogger("llm4seg").level)

logs.configure(sys.argv[1])
with ray_session(Config.load(Path("params.yaml")).cluster):
    print(*ray.get(ray.remote(level_in_worker).remote()))
"""


@pytest.mark.parametrize(("level", "expected"), [("quiet", "quiet WARNING\n"), ("debug", "debug DEBUG\n")])
def test_workers_take_the_level_of_the_command(level: str, expected: str) -> None:
    command = [sys.executable, "-c", SCRIPT, level]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, expected), done.stderr
    assert ("llm4seg.cluster.session: Ray is there after" in done.stderr) == (level == "debug")
