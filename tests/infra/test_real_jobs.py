"""Jobs for real: a laptop, and a Ray cluster of machines that share nothing with it but a bucket."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
import yaml

from tests.machines import Machines, can_make_machines, machines
from tests.project import Project, make_project, read_until
from tests.servers import BUCKET, KEYS, S3, s3_server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not can_make_machines(), reason="needs network namespaces"),
]

REMOTE = "dvc/files/md5"
INFRA = (sys.executable, "-m", "infra")


@dataclass
class Site:
    """A cluster with a head and two workers of one core each, a bucket, and a laptop's checkout."""

    machines: Machines
    s3: S3
    laptop: Project

    @property
    def environment(self) -> dict[str, str]:
        return {**self.machines.environment, "PYTHONUNBUFFERED": "1"}

    def infra(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command of infra to its end."""
        environment = self.laptop.environment | self.environment
        command = [*INFRA, *words]
        return subprocess.run(
            command, cwd=self.laptop.folder, env=environment, capture_output=True, text=True, timeout=900
        )

    def start(self, *words: str) -> subprocess.Popen[str]:
        """A command of infra, to be read while it runs."""
        environment = self.laptop.environment | self.environment
        out = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen([*INFRA, *words], cwd=self.laptop.folder, env=environment, **out)  # type: ignore[call-overload, no-any-return]

    def submit(self, *words: str) -> subprocess.Popen[str]:
        return self.start("submit", self.machines.dashboard, *words)

    def dvc(self, *words: str) -> str:
        return self.laptop.dvc(*words, **self.environment)


def job_of(shown: str) -> str:
    found = re.search(r"sent as (\S+)", shown)
    assert found, shown
    return found[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch, machines(root / "machines", root / "laptop") as made:
        for name in [*os.environ]:
            if "proxy" in name.lower() or name.startswith(("AWS_", "RAY_")):
                patch.delenv(name)
        for name, value in KEYS.items():
            patch.setenv(name, value)
        with s3_server(root / "s3.log", made.here) as s3:
            s3.empty()
            patch.setenv("AWS_ENDPOINT_URL", s3.url)
            laptop = make_laptop(root / "laptop", s3)
            for name, cpus in (("head", 0), ("one", 1), ("two", 1)):
                made.start(name, {**KEYS, "LANG": "C.UTF-8", "AWS_ENDPOINT_URL": s3.url}, cpus)
            made.wait(3)
            yield Site(made, s3, laptop)


def make_laptop(root: Path, s3: S3) -> Project:
    """The project with a remote and a longer training; the stages before it ran here."""
    project = make_project(root)
    project.dvc("remote", "add", "--default", "storage", f"s3://{BUCKET}/here/dvc")
    project.dvc("remote", "modify", "storage", "endpointurl", s3.url)
    project.change("training.epochs", 12)
    for file in (root / "llama").iterdir():
        boto3.client("s3").upload_file(str(file), BUCKET, f"llama/{file.name}")
    project.change("llm.source", f"s3://{BUCKET}/llama")
    project.commit("a remote")
    project.dvc("repro", "split", "fetch_llm")
    project.commit("prepared")
    return project


def test_submit_follow_fetch(site: Site) -> None:
    """A job outlives its log's reader and a machine that dies, and comes home as if it had run here."""
    submitting = site.submit(
        "--set", "cluster.workers=[1, 2]", "--set", "cluster.resize_interval=3600", "--", "dvc", "repro"
    )
    shown = read_until(submitting, "Running stage 'search'")
    submitting.send_signal(signal.SIGINT)
    rest = submitting.communicate()[0]
    job = job_of(shown)
    assert f"{job} goes on" in rest
    assert "Running stage 'prepare'" not in shown

    following = site.start("logs", job)
    again = read_until(following, r"epoch +3\b")
    site.machines.kill("two")
    last = following.communicate(timeout=600)[0]
    print(again + last)
    assert following.returncode == 0, again + last
    assert "Running stage 'search'" in again
    assert f"{job}: succeeded" in last

    fetched = site.infra("fetch", job)
    print(fetched)
    assert fetched.returncode == 0, fetched.stderr
    shown = site.dvc("repro")
    assert "Running stage" not in shown
    assert "Data and pipelines are up to date." in shown
    changed = site.laptop.git("status", "--porcelain", "--untracked-files=all")
    assert "outputs/metrics.json" in changed
    assert "params.yaml" not in changed
    assert len(list(csv.reader((site.laptop.folder / "outputs/history.csv").open()))) == 13


def committed(site: Site) -> Project:
    """The laptop's checkout without changes."""
    site.laptop.git("checkout", "--quiet", ".")
    site.dvc("checkout", "--quiet", "--force", "--allow-missing")
    return site.laptop


def test_an_experiment_comes_home(site: Site) -> None:
    """With its changed parameters; the cluster is no part of it."""
    laptop = committed(site)
    command: tuple[str, ...] = ("dvc", "exp", "run", "--name", "first-layer", "-S", "model.llm.layer=0")
    command += ("-S", "training.epochs=2")
    command += ("-S", "split.seed=1")  # `split` reads a part of what `prepare` left, `train` all of it
    done = site.infra("submit", site.machines.dashboard, "--", *command)
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    before = (laptop.folder / "dvc.lock").read_bytes()
    fetched = site.infra("fetch", job_of(done.stderr))
    print(fetched)
    assert fetched.returncode == 0
    assert (laptop.folder / "dvc.lock").read_bytes() == before

    rows = list(csv.DictReader(io.StringIO(site.dvc("exp", "show", "--csv"))))
    (row,) = [row for row in rows if row["Experiment"] == "first-layer"]
    assert (row["model.llm.layer"], row["training.epochs"]) == ("0", "2")
    assert 0 < float(row["dice.mean"]) < 1
    ref = laptop.git("for-each-ref", "--format=%(refname)", "refs/exps").splitlines()[0]
    sent, ran = (yaml.safe_load(laptop.git("show", f"{commit}:params.yaml")) for commit in ("HEAD", ref))
    sent["training"]["epochs"], sent["model"]["llm"]["layer"], sent["split"]["seed"] = 2, 0, 1
    assert ran == sent  # and nothing of the cluster
    assert not laptop.git("for-each-ref", "refs/infra")

    committed(site)
    site.dvc("exp", "apply", "first-layer")
    assert json.loads((laptop.folder / "outputs/model/model.json").read_text())["config"]["model"]["llm"]["layer"] == [
        0
    ]


def test_an_experiment_that_fails_changes_no_file_here(site: Site) -> None:
    """Though its parameters are not those here; what it finished is in DVC's cache."""
    laptop = committed(site)
    stages = laptop.folder / "dvc.yaml"
    stages.write_text(stages.read_text().replace("cmd: python -m pipelines.train", "cmd: exit 3"))
    laptop.commit("no training")
    command = ("dvc", "exp", "run", "--name", "nothing", "-S", "split.seed=2", "train")
    done = site.infra("submit", site.machines.dashboard, "--", *command)
    assert done.returncode == 1
    cache = laptop.folder / ".dvc" / "cache"
    before = {file for file in cache.rglob("*") if file.is_file()}
    fetched = site.infra("fetch", job_of(done.stderr))
    print(done, fetched)
    assert fetched.returncode == 0, fetched.stderr
    assert "no experiment of it; files here stay as they are" in fetched.stdout
    assert laptop.git("status", "--porcelain") == ""
    assert {file for file in cache.rglob("*") if file.is_file()} > before
    laptop.git("reset", "--quiet", "--hard", "HEAD^")


def test_a_job_that_fails_leaves_what_is_finished(site: Site) -> None:
    laptop = committed(site)
    stages = laptop.folder / "dvc.yaml"
    stages.write_text(
        stages.read_text().replace("cmd: python -m pipelines.report", "cmd: sh -c 'echo no paper; exit 3'")
    )
    laptop.change("training.epochs", 1)
    laptop.commit("no paper")
    done = site.infra("submit", site.machines.dashboard, "--", "dvc", "repro")
    assert done.returncode == 1
    assert "no paper" in done.stdout
    assert re.search(r"infra submit: \S+: failed with exit code \d+", done.stderr.splitlines()[-1]), done.stderr
    job = job_of(done.stderr)
    shown = site.infra("logs", job)
    assert shown.returncode == 1
    assert "no paper" in shown.stdout
    fetched = site.infra("fetch", job)
    assert fetched.returncode == 0, fetched.stderr
    assert f"{job}: failed" in fetched.stderr
    assert set(laptop.stale()) == {"report"}


def test_a_job_that_is_stopped_is_gone_on_with(site: Site) -> None:
    laptop = committed(site)
    laptop.change("training.epochs", 200)
    laptop.commit("longer")
    running = site.submit("--", "dvc", "repro", "train")
    job = job_of(read_until(running, r"epoch +2\b"))
    stopped = site.infra("logs", job, "--stop")
    running.communicate()
    assert stopped.returncode == 1
    assert f"{job}: stopped" in stopped.stderr
    assert site.infra("fetch", job).returncode == 0
    assert "train" in laptop.stale()
    committed(site)
    again = site.infra("submit", site.machines.dashboard, "--", "dvc", "repro", "train")
    assert again.returncode == 0, again.stdout
    assert not re.search(r"epoch +1/", again.stdout)
    assert "epoch 200/200" in again.stdout


def test_refusals(site: Site, tmp_path: Path) -> None:
    laptop = committed(site)
    address = site.machines.dashboard
    laptop.change("training.epochs", 3)
    assert "params.yaml: changed since the last commit" in site.infra("submit", address, "--", "dvc", "repro").stderr
    committed(site)
    refused = site.infra("submit", address, "--set", "optimizer.lr=1", "--", "dvc", "repro")
    assert "--set: found optimizer.lr=1, allowed: cluster.NAME=VALUE" in refused.stderr
    unknown = site.infra("logs", address, "x-20260101-000000-0123456")
    assert unknown.returncode == 1
    assert "no such job on this cluster; `python -m infra status`" in unknown.stderr
    elsewhere = site.infra("logs", "http://127.0.0.1:9", "x-20260101-000000-0123456")
    assert "no Ray dashboard answers there" in elsewhere.stderr
    assert "no result.json of it" in site.infra("fetch", "x-20260101-000000-0123456").stderr
    shown = site.infra("status", address)
    assert all(word in shown.stdout for word in ("alive", "(head)", "succeeded", "dvc repro")), shown

    mine = Site(site.machines, site.s3, laptop.copied(tmp_path / "mine"))
    mine.dvc("remote", "remove", "storage")
    mine.laptop.commit("no remote")
    assert "DVC has no default remote" in mine.infra("submit", address, "--", "dvc", "repro").stderr
    stranger = Site(Machines.__new__(Machines), site.s3, laptop)
    stranger.machines.environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    assert "oken" in stranger.infra("submit", address, "--", "dvc", "repro").stderr.splitlines()[-1]
