"""A job by SkyPilot: the script of its nodes runs for real, here and without SkyPilot; SkyPilot reads its task."""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
import yaml

from infra.jobs import sky
from tests.import_graph import ROOT
from tests.project import Project, make_project, read_until
from tests.servers import BUCKET, ENVIRONMENT, S3

TASK = ROOT / "infra" / "sky" / "task.yaml"
SCRIPTS: dict[str, str] = yaml.safe_load(TASK.read_text())
EPOCHS = 12
# in the place of `sky`: keeps its words
SKY = """#!/bin/sh
printf '%s\\n' "$@" >"$(dirname "$0")/words"
"""


@dataclass
class Node:
    """A machine as SkyPilot makes it: a home of its own, in which the task's `workdir` is."""

    home: Path
    rank: int
    environment: dict[str, str]
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def start(self, nodes: int, script: str = SCRIPTS["run"]) -> subprocess.Popen[str]:
        """Run the task's script, as one of so many nodes."""
        told = {"TASK_ID": f"sky-{self.home.parent}", "NODE_RANK": self.rank, "NUM_NODES": nodes}
        told |= {"NUM_GPUS_PER_NODE": 0, "NODE_IPS": "\n".join(["127.0.0.1"] * nodes)}
        environment = self.environment | {f"SKYPILOT_{name}": str(value) for name, value in told.items()}
        environment |= {"HOME": str(self.home), "TEST_NODE": self.mark, "DVC_SITE_CACHE_DIR": str(self.home / "site")}
        return subprocess.Popen(
            ["bash", "-c", script],
            cwd=self.home / "sky_workdir",
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def processes(self) -> list[psutil.Process]:
        def marked(process: psutil.Process) -> bool:
            try:
                return process.environ().get("TEST_NODE") == self.mark
            except psutil.Error:
                return False

        return [process for process in psutil.process_iter() if marked(process)]

    def take_away(self) -> None:
        """As a cloud takes a spot machine: nothing of it says goodbye."""
        while found := self.processes():
            for process in found:
                process.kill()
            psutil.wait_procs(found)


@dataclass
class Site:
    """A laptop's checkout, a bucket, and a job that is packed to be sent."""

    laptop: Project
    environment: dict[str, str]
    job: str = ""
    words: tuple[str, ...] = ()

    def infra(self, *words: str) -> str:
        return self.laptop.run(sys.executable, "-m", "infra", *words, **self.environment)

    def submit(self, *words: str) -> None:
        shown = self.infra("submit", str(TASK), *words)
        found = re.search(r"^job (\S+);", shown, re.MULTILINE)
        assert found, shown
        self.job = found[1]
        self.words = tuple((self.laptop.folder.parent / "bin" / "words").read_text().splitlines())

    def node(self, root: Path, rank: int) -> Node:
        """A new machine with what is sent, and with this Python's packages in the place of what `setup` installs."""
        workdir = root / str(rank) / "sky_workdir"
        shutil.copytree(self.laptop.folder / SCRIPTS["workdir"], workdir)
        (workdir / ".venv").symlink_to(sys.prefix)
        return Node(workdir.parent, rank, {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **self.environment})


@pytest.fixture
def site(s3: S3, tmp_path: Path) -> Site:
    """Of the project with a longer training, and a remote; the stages before it ran on the laptop."""
    laptop = make_project(tmp_path)
    laptop.dvc("remote", "add", "--default", "storage", f"s3://{BUCKET}/here/dvc")
    for file in (tmp_path / "llama").iterdir():
        boto3.client("s3", endpoint_url=s3.url).upload_file(str(file), BUCKET, f"llama/{file.name}")
    laptop.change("llm.source", f"s3://{BUCKET}/llama")
    laptop.change("training.epochs", EPOCHS)
    laptop.change("engine.name", "torch")
    environment = {**ENVIRONMENT, "AWS_ENDPOINT_URL": s3.url, "OMP_NUM_THREADS": "1"}
    laptop.dvc("repro", "split", "fetch_llm", **environment)
    laptop.commit("prepared")
    program = tmp_path / "bin" / "sky"
    program.parent.mkdir()
    program.write_text(SKY)
    program.chmod(0o755)
    path = os.pathsep.join((str(program.parent), str(Path(sys.executable).parent), os.environ["PATH"]))
    return Site(laptop, environment | {"PATH": path})


@pytest.mark.slow
def test_a_job_whose_spot_machine_is_taken_away_goes_on_elsewhere_and_comes_home(site: Site, tmp_path: Path) -> None:
    command = ("dvc", "exp", "run", "--name", "by-sky", "-S", "split.seed=1", "train")
    site.submit("--set", "cluster.checkpoint_minutes=0.001", "--", *command)
    assert site.words == ("jobs", "launch", "--name", site.job, str(TASK))
    assert (site.laptop.folder / ".infra" / "job" / "ray_token").stat().st_mode & 0o77 == 0

    first = site.node(tmp_path / "first", 0)
    with first.start(1) as running:
        shown = read_until(running, r"epoch +5/")
        first.take_away()
    assert "Running stage 'split'" in shown
    assert "running" in site.infra("fetch", "--dry-run", site.job)

    second = site.node(tmp_path / "second", 0)
    with second.start(1) as running:
        shown = running.communicate(timeout=300)[0]
    assert running.returncode == 0, shown
    assert "Running stage 'split'" not in shown
    assert not re.search(r"epoch +[1-3]/", shown), shown
    assert f"epoch {EPOCHS}/{EPOCHS}" in shown
    left = [process for process in second.processes() if process.status() != psutil.STATUS_ZOMBIE]
    assert not psutil.wait_procs(left, timeout=60)[1], "Ray's helpers end a moment after it"

    assert "experiments: by-sky" in site.infra("fetch", site.job)
    rows = csv.DictReader(io.StringIO(site.laptop.dvc("exp", "show", "--csv", **site.environment)))
    assert [row["split.seed"] for row in rows if row["Experiment"] == "by-sky"] == ["1"]


@pytest.mark.slow
def test_two_nodes_train_together(site: Site, tmp_path: Path) -> None:
    """They see each other through their addresses alone; data come to each out of the bucket."""
    cluster = {"workers": 2, "placement": "SPREAD", "cpus_per_worker": 1, "node_cache": "~/data"}
    settings = [word for name, value in cluster.items() for word in ("--set", f"cluster.{name}={value}")]
    site.submit("--sky", "launch --num-nodes 2", *settings, "--", "dvc", "repro", "train")
    assert site.words[:3] == ("launch", "--num-nodes", "2")
    nodes = [site.node(tmp_path / "nodes", rank) for rank in (0, 1)]
    other, first = nodes[1].start(2), nodes[0].start(2)  # the head comes last
    with first, other:
        shown = first.communicate(timeout=300)[0]
        assert first.returncode == 0, shown
        assert f"epoch {EPOCHS}/{EPOCHS}" in shown
        began = time.monotonic()
        said = other.communicate(timeout=300)[0]
        print(f"the other node ended {time.monotonic() - began:.0f} s after the first")
    assert other.returncode == 0, said
    assert all(any((node.home / "data").rglob("*")) for node in nodes), "each has fetched the data"
    assert "brought" in site.infra("fetch", site.job)
    assert "train" not in site.laptop.stale()


def test_a_job_ends_where_a_node_never_joins(tmp_path: Path) -> None:
    """Here with programs that do nothing: Ray answers, and the count of nodes never ends."""
    node, folder = Node(tmp_path, 0, {"PATH": os.environ["PATH"]}), tmp_path / "sky_workdir" / ".venv" / "bin"
    folder.mkdir(parents=True)
    (folder.parents[1] / "ray_token").write_text("secret")
    for name, text in {"ray": '[ "$1" = health-check ] || exec sleep 60', "python": "exec sleep 60"}.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    with node.start(2, SCRIPTS["run"].replace("timeout 600 ", "timeout 1 ")) as running:
        assert running.communicate(timeout=30)[0] == "not all nodes joined in 10 minutes\n"
    assert running.returncode == 1


@pytest.fixture(scope="module")
def own_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with SkyPilot and uv: SkyPilot's click does not go with this project's."""
    folder = tmp_path_factory.mktemp("skypilot")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    command = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "skypilot>=0.14,<0.15", "uv"]
    done = subprocess.run(command, capture_output=True, text=True)
    if "No matching distribution" in done.stderr:
        pytest.skip("no package index is reached")
    assert done.returncode == 0, done.stderr
    return folder / "bin"


READ = """
import json, sys
import sky
from sky.data.storage_utils import get_excluded_files
task = sky.Task.from_yaml(sys.argv[1])
resources = [
    {"gpus": dict(one.accelerators), "spot": one.use_spot, "minutes": one.autostop_config.idle_minutes,
     "down": one.autostop_config.down, "cpus": one.cpus}
    for one in task.resources
]
read = {"nodes": task.num_nodes, "resources": resources, "excluded": get_excluded_files(task.workdir)}
print(json.dumps(read | {"secrets": task.secrets, "envs": task.envs, "again": task.to_yaml_config()["run"]}))
"""


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A checkout's folder after `submit`: .infra is ignored by git."""
    folder = tmp_path / "checkout"
    (folder / "sent").mkdir(parents=True)
    (folder / "requirements.lock").touch()
    (folder / ".gitignore").write_text(".infra/\n")
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sky, "call", lambda *words: None)
        sky.launch("task.yaml", "job", Path("sent"), sky.HOW, dry_run=False)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [1, 3])
def test_skypilot_reads_the_task(own_environment: Path, packed: Path, nodes: int) -> None:
    """What needs no cloud; `sky launch --dryrun` fetches lists of machines and prices from GitHub first."""
    file = packed / "task.yaml"
    file.write_text(TASK.read_text().replace("num_nodes: 1 ", f"num_nodes: {nodes} "))
    environment = os.environ | {"HOME": str(packed), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [str(own_environment / "python"), "-c", READ, str(file)],
        cwd=packed,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    read: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert read["nodes"] == nodes
    assert {
        spot: {tuple(one["gpus"]) for one in read["resources"] if one["spot"] == spot} for spot in (True, False)
    } == {spot: {("L4",), ("A10G",), ("A10",), ("A100",)} for spot in (True, False)}
    assert {(one["minutes"], one["down"], one["cpus"]) for one in read["resources"]} == {(15, True, "4+")}
    assert read["excluded"] == [], "all that is packed is sent, although git ignores its folder"
    assert (read["secrets"], read["envs"]) == ({}, {})
    assert read["again"] == SCRIPTS["run"]


@pytest.mark.slow
def test_nodes_get_the_environment_once(own_environment: Path, tmp_path: Path) -> None:
    """`setup` for real, with one small package in the lock."""
    lock = tmp_path / "requirements.lock"
    lock.write_text("six==1.17.0\n")
    path = os.pathsep.join((str(own_environment), os.environ["PATH"]))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
        "HOME": str(tmp_path),
        "PATH": path,
    }

    def set_up() -> None:
        done = subprocess.run(
            ["bash", "-c", SCRIPTS["setup"]], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    set_up()
    script = "import six, sys; print(six.__version__, *sys.version_info[:2])"
    shown = subprocess.check_output([str(tmp_path / ".venv" / "bin" / "python"), "-c", script], text=True).split()
    assert shown[0] == "1.17.0"
    assert shown[1:] in (["3", "11"], ["3", "12"])
    mark = tmp_path / ".venv" / "mark"
    mark.touch()
    set_up()
    assert mark.exists(), "it was made anew"
    lock.write_text("six==1.16.0\n")
    set_up()
    assert not mark.exists()
