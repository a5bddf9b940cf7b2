"""The Slurm job for real: a slurmctld and two slurmd here, one with room for two jobs at once."""

import getpass
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from llm4seg.config import Config
from tests.import_graph import ROOT
from tests.project import Project, make_project
from tests.servers import free_port

PATH = os.pathsep.join((os.environ["PATH"], "/usr/sbin"))
SLURM = all(shutil.which(name, path=PATH) for name in ("slurmctld", "slurmd", "sbatch"))
pytestmark = pytest.mark.skipif(not SLURM, reason="apt-get install slurm-wlm")
EPOCHS = 40
SETTINGS = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
StateSaveLocation={folder}
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/pid
SlurmdPidFile={folder}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1
PartitionName=all Nodes=ALL Default=YES State=UP
"""


@dataclass
class Slurm:
    """The cluster of a slurm.conf."""

    environment: dict[str, str]

    def __call__(self, *words: str, folder: Path = ROOT) -> str:
        """What a command of Slurm prints."""
        return subprocess.run(
            words, cwd=folder, env=self.environment, check=True, capture_output=True, text=True, timeout=60
        ).stdout

    def submit(self, project: Project, *words: str) -> str:
        """Send our job with options and a command; returns its number."""
        options = ("--parsable", "--gres=none", "--mem=0", "--cpus-per-task=1")
        return self("sbatch", *options, *words, folder=project.folder).strip()

    def about(self, job: str) -> dict[str, str]:
        return dict(re.findall(r"(\w+)=(\S*)", self("scontrol", "show", "job", job)))

    def state(self, job: str) -> str:
        return self.about(job)["JobState"]

    def wait(self, job: str) -> None:
        """Wait until it has ended."""
        wait_until(lambda: self.state(job) not in ("PENDING", "RUNNING", "COMPLETING"))


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    folder = tmp_path_factory.mktemp("slurm")
    ports = [free_port() for _ in range(3)]
    settings = SETTINGS.format(host=socket.gethostname(), user=getpass.getuser(), ports=ports, folder=folder)
    (folder / "slurm.conf").write_text(settings)
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_"))}
    found = Slurm(outside | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": PATH})
    commands = (["slurmctld", "-D"], ["slurmd", "-D", "-N", "n1"], ["slurmd", "-D", "-N", "n2"])
    with (folder / "log").open("w") as log:
        servers = [subprocess.Popen(words, env=found.environment, stdout=log, stderr=log) for words in commands]
    try:
        wait_until(lambda: found("sinfo", "--noheader", "--format=%D %T").strip() == "2 idle", 60)
        yield found
        found("scancel", "--user", getpass.getuser())
        wait_until(lambda: not found("squeue", "--noheader"), 60)
    finally:
        for server in servers:
            server.terminate()
            server.wait(timeout=30)


@pytest.fixture(scope="module")
def prepared(workspace: Config, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project of which all that is before the training is there."""
    project, made = make_project(tmp_path_factory.mktemp("prepared")), Path(workspace.llm.source).parent
    for name in ("data", "outputs"):
        shutil.copytree(made / name, project.folder / name, dirs_exist_ok=True)
    project.change("training.epochs", EPOCHS)
    return project


def wait_until(done: Callable[[], bool], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.1)


def epochs(log: Path) -> list[list[int]]:
    """The epochs that a job has printed so far, in each run of the stage."""
    runs = log.read_text().split("Running stage")[1:] if log.exists() else []
    return [[int(epoch) for epoch in re.findall(r"^epoch +(\d+)/", run, re.MULTILINE)] for run in runs]


def workers(job: str) -> list[psutil.Process]:
    """The processes of a job's Ray that train."""
    found = [one for one in psutil.process_iter(["name", "cmdline"]) if one.info["name"] == "raylet"]
    raylets = [one for one in found if f"/llm4seg-{job}/" in " ".join(one.info["cmdline"])]
    children = [child for raylet in raylets for child in raylet.children()]
    return [child for child in children if "RayTrainWorker" in " ".join(child.cmdline())]


@pytest.mark.slow  # about five minutes, most of them Slurm's
def test_a_job_at_its_time_limit_ends_as_if_undisturbed_beside_another_on_two_nodes(
    slurm: Slurm, prepared: Project, tmp_path: Path
) -> None:
    """Slurm looks at time limits every 30 seconds; until it does, the first job's worker is suspended."""
    limited, wide, undisturbed = (prepared.copied(tmp_path / name) for name in ("limited", "wide", "undisturbed"))
    for name, value in {"workers": 2, "launcher": "ray"}.items():
        wide.change(f"cluster.{name}", value)
    wide.change("engine.name", "torch")
    script, train = str(ROOT / "infra/slurm/job.sh"), (sys.executable, "-m", "pipelines.train")
    first = slurm.submit(
        limited, "--nodelist=n1", "--time=60", "--signal=B:TERM@240", script, "dvc", "repro", "--single-item", "train"
    )
    second = slurm.submit(wide, "--nodes=2", script, *train)
    log = limited.folder / f"slurm-{first}.log"
    wait_until(lambda: [2] in [run[1:2] for run in epochs(log)] or slurm.state(first) == "FAILED")
    (stopped,) = workers(first)
    stopped.suspend()
    wait_until(lambda: len(workers(second)) == 2)  # of both nodes
    minutes = int(slurm("squeue", "--noheader", "--format=%M", "--jobs", first).split(":")[0])
    slurm("scontrol", "update", f"JobId={first}", f"TimeLimit={minutes + 4}")
    undisturbed.run(*train)
    wait_until(lambda: "SIGTERM: the job saves a checkpoint" in log.read_text())
    slurm("scontrol", "update", f"JobId={first}", "TimeLimit=60")
    time.sleep(5)  # until the signal is where the worker looks
    stopped.resume()
    wait_until(lambda: slurm.state(first) == "PENDING")
    slurm("scontrol", "update", f"JobId={first}", "StartTime=now+5seconds")  # else two minutes
    for project, job in ((limited, first), (wide, second)):
        slurm.wait(job)
        assert slurm.state(job) == "COMPLETED", (project.folder / f"slurm-{job}.log").read_text()
        assert not Path(f"/tmp/llm4seg-{job}").exists()
    assert slurm.about(first)["Restarts"] == "1"
    before, after = epochs(log)
    assert 1 < before[-1] < after[0] + 1 <= EPOCHS
    assert after[-1] == EPOCHS
    histories = [(one.folder / "outputs" / "history.csv").read_bytes() for one in (limited, undisturbed, wide)]
    assert histories[0] == histories[1]
    assert histories[2].count(b"\n") == EPOCHS + 1


def test_a_cancelled_job_is_not_queued_again(slurm: Slurm, prepared: Project) -> None:
    """Slurm would queue it, although it was cancelled."""
    job = slurm.submit(prepared, str(ROOT / "infra/slurm/job.sh"), "bash", "-c", "touch started; sleep 600")
    wait_until((prepared.folder / "started").exists)
    slurm("scancel", job)
    slurm.wait(job)
    assert slurm.state(job) == "CANCELLED"
    assert not Path(f"/tmp/llm4seg-{job}").exists()
