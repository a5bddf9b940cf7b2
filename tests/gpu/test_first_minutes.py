"""first_minutes.sh prints one table, whatever becomes of its steps."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.gpu.first_minutes import STEPS, launches, memory
from tests.import_graph import ROOT

SCRIPT = ROOT / "tests" / "gpu" / "first_minutes.sh"
PYTHON = """#!/bin/sh
case "$*" in
    *"first_minutes machine"*) echo "2 x H100, driver 1, torch 2" ;;
    *test_graph_on_gpu*) echo "5 passed in 1 s"; exit 0 ;;
    *test_train_on_gpu*) echo "1 | 2 failed"; exit 1 ;;
    *"first_minutes memory"*) exec sleep 60 ;;
    *"first_minutes nvme"*) echo "engine.offload: nvme does not work" >&2; exit 1 ;;
    *) echo "$*" ;;
esac
"""
TIMEOUT = '#!/bin/sh\nshift 2\nexec /usr/bin/timeout 2 "$@"\n'  # not minutes


@pytest.fixture
def stubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {"python": PYTHON, "timeout": TIMEOUT}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)


def printed(*options: str) -> list[str]:
    done = subprocess.run([SCRIPT, *options], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.splitlines()


def test_a_step_that_fails_or_takes_too_long_ends_no_other(stubs: None) -> None:
    title, _, head, rule, *rows = printed()
    assert title.endswith(": 2 x H100, driver 1, torch 2")
    assert (head, rule) == ("| what | found | s |", "|---|---|---|")
    found = [row.split(" | ")[1] for row in rows]
    assert found == [
        "5 passed in 1 s",
        r"**failed (1)** 1 \| 2 failed",
        "**not done in 90 s** ",
        "-m tests.gpu.first_minutes speed --device cuda",
        "-m tests.gpu.first_minutes launches",
        "**failed (1)** engine.offload: nvme does not work",
    ]


def test_without_a_gpu_steps_that_need_one_say_so(stubs: None) -> None:
    rows = printed("--cpu")[4:]
    assert [row.split(" | ")[1] for row in rows[:2]] == ["no GPU", "no GPU"]
    assert "speed --device cpu" in rows[3]
    assert memory("cpu") == "no GPU"


def test_its_limits_are_eight_minutes_in_all() -> None:
    words = [
        line.split('" ')[1].split()[0]
        for line in SCRIPT.read_text().splitlines()
        if line.startswith(("step ", "correct "))
    ]
    assert len(words) == 1 + 6
    assert sum(map(int, words)) <= 480


@pytest.mark.parametrize("option", ["--help", "--gpu"])
def test_help_has_an_example_and_other_options_are_refused(option: str) -> None:
    done = subprocess.run([SCRIPT, option], capture_output=True, text=True)
    assert (done.returncode, "example: tests/gpu/first_minutes.sh" in done.stdout) == (
        (0, True) if option == "--help" else (2, False)
    )


def test_launches_are_counted_anywhere(group: None) -> None:
    count, allowed = launches("cpu").split(", allowed: ")
    assert 0 < int(count) <= int(allowed)
    assert set(STEPS) == {"machine", "memory", "speed", "launches", "nvme"}
