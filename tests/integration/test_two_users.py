"""Two users of one machine train at the same time, each on a Ray of their own: with ports, folders and tokens."""

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm4seg.config import Config
from tests.import_graph import ROOT

USERS = (54321, 54322)  # of nobody here
TRAIN = """
import json, sys
from pathlib import Path
from llm4seg.cluster.launcher import train
from llm4seg.cluster.runs import run_name
from llm4seg.config import Config
config = Config.parse(json.loads(Path(sys.argv[1]).read_text()))
print(json.dumps([row["train_loss"] for row in train(config, run_name(config)).history]))
"""


def can_run(user: int) -> bool:
    """Whether this Python, whose folder may be its owner's alone, runs as another user."""
    try:
        command = [sys.executable, "-c", "import ssl, torch, ray, llm4seg"]
        them: dict[str, Any] = {"user": user, "group": user, "extra_groups": [], "env": environment(user)}
        return subprocess.run(command, cwd=ROOT, capture_output=True, **them).returncode == 0
    except OSError:
        return False


def environment(user: int, home: str = "/nowhere") -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TMPDIR", "XDG_"))}
    return kept | {"HOME": home, "USER": str(user), "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that every user may pass through, which pytest's own is not."""
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        Path(made).chmod(0o755)
        yield Path(made)
    for user in USERS:
        shutil.rmtree(f"/tmp/llm4seg-u{user}", ignore_errors=True)


def moved(workspace: Config, home: Path) -> Config:
    """The workspace in a user's home."""
    root = Path(os.path.commonpath([path for _, path in workspace.paths]))
    shutil.copytree(root, home)
    changed = {f"paths.{name}": str(home / path.relative_to(root)) for name, path in workspace.paths}
    return workspace.override(changed | {"cluster.launcher": "ray"})


def start(user: int, home: Path, config: Config) -> "subprocess.Popen[str]":
    (home / "params.json").write_text(json.dumps(config.plain()))
    for path in (home, *home.rglob("*")):
        os.chown(path, user, user)
    home.chmod(0o700)
    return subprocess.Popen(
        [sys.executable, "-c", TRAIN, str(home / "params.json")],
        cwd=home,
        env=environment(user, str(home)),
        user=user,
        group=user,
        extra_groups=[],
        umask=0o022,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs processes of other users")
def test_they_do_not_meet(workspace: Config, folder: Path) -> None:
    if not all(map(can_run, USERS)):
        pytest.skip(f"other users may not run {sys.executable}")
    homes = {user: folder / str(user) for user in USERS}
    started = [start(user, home, moved(workspace, home)) for user, home in homes.items()]
    said = [process.communicate(timeout=400) for process in started]
    losses = [out.splitlines()[-1:] for out, _ in said]
    assert losses[0] == losses[1] != [], said
    assert len(json.loads(losses[0][0])) == workspace.training.epochs
    for user, home in homes.items():
        token = (home / ".ray" / "auth_token").stat()
        assert (token.st_uid, stat.S_IMODE(token.st_mode)) == (user, 0o600)
        logs = Path(f"/tmp/llm4seg-u{user}").stat()
        assert (logs.st_uid, stat.S_IMODE(logs.st_mode)) == (user, 0o700)
