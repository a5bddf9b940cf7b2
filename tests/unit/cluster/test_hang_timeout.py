"""A process that makes no step in the time allowed ends, and says where it was."""

import subprocess
import sys

import pytest

from tests.import_graph import ROOT

PROGRAM = """
import ctypes, time
from llm4seg.cluster.hang_timeout import HangTimeout

def waits_for_ever():
    {wait}

timeout = HangTimeout({seconds})
for _ in range(5):
    timeout.rearm()
    time.sleep(0.4)
print("five steps", flush=True)
{then}
"""


def run(wait: str, seconds: float | None, then: str) -> "subprocess.CompletedProcess[str]":
    program = PROGRAM.format(wait=wait, seconds=seconds, then=then)
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    "wait", ["time.sleep(50)", "ctypes.PyDLL(None).sleep(50)"], ids=["in Python", "in C code that holds Python's lock"]
)
def test_a_process_that_hangs_ends_with_its_stack(wait: str) -> None:
    ended = run(wait, 1.0, "waits_for_ever()")
    assert ended.stdout == "five steps\n"
    assert ended.returncode == 1
    assert "in waits_for_ever" in ended.stderr


@pytest.mark.parametrize(("seconds", "then"), [(1.0, "timeout.cancel(); time.sleep(1.5)"), (None, "time.sleep(0.1)")])
def test_one_that_has_ended_its_run_or_has_no_timeout_goes_on(seconds: float | None, then: str) -> None:
    ended = run("pass", seconds, then)
    assert (ended.returncode, ended.stderr) == (0, "")
