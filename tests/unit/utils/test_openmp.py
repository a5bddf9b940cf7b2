"""How OpenMP's threads wait: the user's own choice stays, and the OpenMP that torch runs takes what is set."""

import os
import subprocess
import sys

import pytest

from llm4seg.utils.openmp import SPINS, wait_policy

SHOWN = "OMP_DISPLAY_ENV"  # OpenMP prints its settings as it is loaded
SCRIPT = """
from llm4seg.utils.openmp import let_threads_sleep
let_threads_sleep()
import torch
"""


def settings(**environment: str) -> str:
    """What torch's OpenMP prints of its settings, in a new process."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP", "GOMP", "KMP"))}
    command = [sys.executable, "-c", SCRIPT]
    ended = subprocess.run(
        command, env=kept | {SHOWN: "verbose"} | environment, capture_output=True, text=True, check=True
    )
    return ended.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="another OpenMP prints other lines")
def test_torchs_openmp_takes_the_policy() -> None:
    assert f"GOMP_SPINCOUNT = '{SPINS}'" in settings()
    assert "OMP_WAIT_POLICY = 'ACTIVE'" in settings(OMP_WAIT_POLICY="active")


@pytest.mark.parametrize("own", [{"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "5"}, {"KMP_BLOCKTIME": "1"}])
def test_the_users_own_choice_stays(own: dict[str, str]) -> None:
    assert wait_policy(own) == own


def test_nothing_else_of_the_environment_is_taken() -> None:
    assert wait_policy({"OMP_NUM_THREADS": "2"}) == {"GOMP_SPINCOUNT": SPINS}
