"""A cluster on a machine of one's own: a real `ray up`, through a real ssh server without a port."""

import getpass
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml

from tests.import_graph import ROOT
from tests.servers import free_port

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
TOOLS = Path(SSHD).exists() and shutil.which("rsync") and shutil.which("ssh")
pytestmark = pytest.mark.skipif(not TOOLS, reason="apt-get install openssh-server rsync")
NAME = "lab"


@dataclass
class Lab:
    """A laptop's checkout, the home of the machine's user, and the mark of every process that came in by SSH."""

    folder: Path
    home: Path
    sockets: Path
    port: int
    mark: str
    environment: dict[str, str]

    def python(self, *words: str, code: int = 0) -> str:
        command = [sys.executable, *words]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, text=True, capture_output=True, timeout=240
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def processes(self) -> list[psutil.Process]:
        def marked(process: psutil.Process) -> bool:
            try:
                return process.environ().get("INFRA_TEST") == self.mark
            except psutil.Error:
                return False

        return [process for process in psutil.process_iter() if marked(process)]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    sockets = Path(tempfile.mkdtemp(prefix="lab"))  # a socket's path has at most 107 characters
    found = Lab(folder, folder / "machine", sockets, free_port(), str(folder), _environment(folder))
    found.home.mkdir()
    _write_ssh_server(found)
    _write_cluster_file(found)
    # what setup.sh would install is here already; `ray stop` would end every Ray of this machine
    (found.home / ".bashrc").write_text(f"ray() {{ echo $1 >> {folder}/ray.log; }}\n")
    yield found
    for process in found.processes():
        process.kill()
    shutil.rmtree(sockets, ignore_errors=True)


def _environment(folder: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "AWS_"))}
    (folder / "home").mkdir()
    return {**kept, "HOME": str(folder / "home"), "PYTHONPATH": str(ROOT)}


def _write_ssh_server(lab: Lab) -> None:
    """Its configuration: who may come, and that their home is the temporary one."""
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", lab.folder / name], check=True)
    (lab.folder / "sshd").write_text(
        textwrap.dedent(f"""
        HostKey {lab.folder}/host
        AuthorizedKeysFile {lab.folder}/user.pub
        StrictModes no
        UsePAM no
        PermitRootLogin prohibit-password
        PidFile none
        SetEnv HOME={lab.home} INFRA_TEST={lab.mark} RAY_TMPDIR={lab.sockets}
        """)
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where it wants to have its privileges separated


def _write_cluster_file(lab: Lab) -> None:
    """Our file for the machine that this is: with a head alone, on free ports."""
    config = yaml.safe_load((ROOT / "infra" / "onprem.yaml").read_text())
    config |= {"cluster_name": NAME, "max_workers": 0}
    config["provider"] |= {"head_ip": "127.0.0.1", "worker_ips": []}
    user, proxy = getpass.getuser(), f"{SSHD} -i -f {lab.folder}/sshd"
    config["auth"] = {"ssh_user": user, "ssh_private_key": str(lab.folder / "user"), "ssh_proxy_command": proxy}
    config["file_mounts"] = {remote: str(ROOT / local) for remote, local in config["file_mounts"].items()}
    config["setup_commands"] = [f"ln -sfn {sys.prefix} ~/llm4seg/venv"]
    _, start = config["head_start_ray_commands"]
    ports = {"port": free_port(), "dashboard-port": lab.port, "dashboard-agent-listen-port": free_port()}
    ports["ray-client-server-port"] = free_port()  # other Rays may be here, with the usual ones
    mine = " ".join(f"--{name}={port}" for name, port in ports.items()) + " --num-cpus=1"
    start = start.replace("--port=6379 --object-manager-port=8076", mine).replace("ray start", "command ray start")
    config["head_start_ray_commands"] = [start]
    (lab.folder / "lab.yaml").write_text(yaml.safe_dump(config))


def test_from_up_to_down(lab: Lab) -> None:
    lab.python("-m", "infra", "up", "lab.yaml")
    token = (lab.folder / "home" / ".ray" / "auth_token").read_text()
    there = lab.home / ".ray" / "auth_token"
    assert there.read_text() == token
    assert there.stat().st_mode & 0o077 == 0
    assert (lab.home / "llm4seg" / "requirements.lock").exists()
    assert "127.0.0.1" in lab.python("-m", "infra", "status", "lab.yaml")
    for process in lab.processes():
        assert token not in " ".join(process.cmdline())
    assert lab.python("-c", SUBMIT).split()[-3:] == ["401", "ran", "SUCCEEDED"]
    _check_that_an_idle_head_ends_itself(lab)
    lab.python("-m", "infra", "down", "lab.yaml")
    assert "stop" in (lab.folder / "ray.log").read_text()
    assert not (lab.folder / ".infra" / NAME).exists()
    lab.python("-m", "infra", "down", "lab.yaml")


SUBMIT = """
import time, urllib.error, urllib.request
from infra.launchers import launcher
from ray.job_submission import JobSubmissionClient
with launcher("lab.yaml").dashboard() as address:
    try:
        urllib.request.urlopen(address + "/api/jobs/")
    except urllib.error.HTTPError as error:
        print(error.code)
    client = JobSubmissionClient(address)
    for _ in range(120):
        try:
            job = client.submit_job(entrypoint="echo ran", submission_id="first")
            break
        except RuntimeError as error:  # the agent that starts jobs comes up some seconds after the dashboard
            assert "No available agent" in str(error)
            time.sleep(0.5)
    while not (status := client.get_job_status(job)).is_terminal():
        time.sleep(0.2)
    print(client.get_job_logs(job).split()[-1], str(status))
"""


def _check_that_an_idle_head_ends_itself(lab: Lab) -> None:
    """Not while a job runs, and then after as long as it was told."""
    address = f"http://127.0.0.1:{lab.port}"
    here = {**lab.environment, "HOME": str(lab.home), "RAY_AUTH_MODE": "token"}
    client = f"from ray.job_submission import JobSubmissionClient as C; C('{address}').submit_job(entrypoint='sleep 3')"
    subprocess.run([sys.executable, "-c", client], env=here, check=True, timeout=60)
    began = time.monotonic()
    watch = [sys.executable, str(ROOT / "infra" / "nodes" / "idle.py"), "--head", "--minutes", "0.02", "--dashboard"]
    done = subprocess.run(
        [*watch, address, "--look-every", "0.2", "--", "echo", "off"],
        env=here,
        text=True,
        capture_output=True,
        timeout=120,
    )
    assert done.stdout == "off\n", done.stderr
    assert time.monotonic() - began > 3
    assert "does not answer" not in done.stderr
