"""What runs on the nodes themselves: the set-up, and what ends an idle node."""

import hashlib
import itertools
import shutil
import subprocess
from pathlib import Path

import pytest

from infra.nodes import idle
from tests.import_graph import ROOT


def test_a_node_that_is_set_up_is_left_as_it_is(tmp_path: Path) -> None:
    home, folder = tmp_path / "home", tmp_path / "home" / "llm4seg"
    (folder / "venv").mkdir(parents=True)
    (home / ".bashrc").write_text("# mine\n")
    (folder / "requirements.lock").write_text("ray==1\n")
    (folder / "setup.sh").write_text((ROOT / "infra" / "nodes" / "setup.sh").read_text())
    digest = hashlib.sha256(b"ray==1\n").hexdigest()
    (folder / "venv" / "installed").write_text(f"{digest}  requirements.lock\n")
    for _ in range(2):
        environment = {"HOME": str(home), "PATH": "/usr/bin:/bin"}
        subprocess.run(["bash", folder / "setup.sh"], env=environment, check=True, timeout=30)
    assert (home / ".bashrc").read_text().splitlines() == [
        "# mine",
        f"export RAY_AUTH_MODE=token PATH={folder}/venv/bin:$PATH",
    ]
    assert [file.name for file in (folder / "venv").iterdir()] == ["installed"]


def test_what_is_missing_on_a_node_is_installed(tmp_path: Path) -> None:
    """Python with venv and rsync are there, git is not."""
    tools, folder = tmp_path / "tools", tmp_path / "home" / "llm4seg"
    tools.mkdir()
    folder.mkdir(parents=True)
    for tool in ("bash", "dirname", "cat", "grep", "sha256sum"):
        (tools / tool).symlink_to(str(shutil.which(tool)))
    for tool, text in (("python3.12", ""), ("rsync", ""), ("sudo", f'echo "$@" >> {tmp_path}/log; exit 7')):
        (tools / tool).write_text(f"#!{tools}/bash\n{text}\n")
        (tools / tool).chmod(0o755)
    (folder / "requirements.lock").write_text("ray==1\n")
    (folder / "setup.sh").write_text((ROOT / "infra" / "nodes" / "setup.sh").read_text())
    environment = {"HOME": str(tmp_path / "home"), "PATH": str(tools)}
    done = subprocess.run([tools / "bash", folder / "setup.sh"], env=environment, timeout=30, capture_output=True)
    assert done.returncode == 7, done.stderr
    assert "apt-get" in (tmp_path / "log").read_text()


def test_a_node_is_idle_once_nothing_was_needed_for_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(step=1)
    now = [0.0]
    monkeypatch.setattr(idle.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(idle.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    idle.wait_until_idle(lambda: next(clock) < 5, seconds=30, look_every=10)
    assert now[0] == 5 * 10 + 30


def test_no_dashboard_is_no_need(capsys: pytest.CaptureFixture[str]) -> None:
    assert idle.head_is_needed("http://127.0.0.1:9") is False
    assert "does not answer" in capsys.readouterr().err
