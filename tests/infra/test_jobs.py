"""The small parts of a job: which files are sent, what DVC is told, what comes home and what it may not overwrite."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem

from infra.jobs import fetch_results
from infra.jobs.bootstrap import unpack
from infra.jobs.client import submit_job
from infra.jobs.dvc_repo import open_repo, read_but_not_sent, read_in_part, uncached
from infra.jobs.fetch_results import fetch
from infra.jobs.git import commit_to_send, git, git_lines, write_bundle
from infra.jobs.job_spec import NAME, JobSpec
from infra.jobs.results import BUNDLE, RESULT, JobResults
from infra.jobs.runner import with_pull
from infra.jobs.submit import Submission, parse_settings, storage_beside
from infra.launchers import launcher
from llm4seg.config import Config
from llm4seg.config.config import JOB_SETTINGS
from llm4seg.utils.errors import InputError
from tests.import_graph import ROOT

STAGES = """
stages:
  make:
    cmd: python make.py
    deps: [raw, make.py]
    outs: [data, {report: {cache: false}}]
  use:
    cmd: python use.py
    deps: [data/list.json, whole]
  first:
    cmd: python first.py
    outs: [whole, raw/more]
"""


LOCK = """
schema: '2.0'
stages:
  make: {cmd: python make.py, outs: [{path: data, hash: md5, md5: 0123456789abcdef0123456789abcdef.dir}]}
  first:
    cmd: python first.py
    outs:
    - {path: raw/more, hash: md5, md5: 1123456789abcdef0123456789abcdef.dir}
    - {path: whole, hash: md5, md5: 2123456789abcdef0123456789abcdef.dir}
"""


@pytest.fixture(autouse=True)
def person(monkeypatch: pytest.MonkeyPatch) -> None:
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Ada")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "ada@example.org")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git repository of two commits."""
    folder = tmp_path / "My project"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=main")
    for number in (1, 2):
        (folder / "a").write_text(f"a {number}\n")
        (folder / "b").write_text("b\n")
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "--message", f"commit {number}")
    return folder


def test_changes_are_refused_by_name(checkout: Path) -> None:
    (checkout / "b").write_text("other\n")
    (checkout / "new").write_text("new\n")
    git(checkout, "add", "new")
    (checkout / "stray").write_text("stray\n")
    with pytest.raises(InputError, match="b, new: changed since the last commit"):
        commit_to_send(checkout)


def test_a_sent_tree_is_the_commit_without_history(checkout: Path, tmp_path: Path) -> None:
    sent = commit_to_send(checkout)
    assert sent == git(checkout, "rev-parse", "HEAD")
    write_bundle(checkout, sent, tmp_path / "snapshot.bundle")
    there = tmp_path / "there"
    unpack(tmp_path / "snapshot.bundle", there, sent)
    assert git(there, "rev-parse", "HEAD") == sent
    assert git(there, "status", "--porcelain") == ""
    assert (there / "a").read_text() == "a 2\n"
    assert len(git_lines(there, "log", "--format=%h")) == 1


def test_only_where_a_run_happens_may_be_set() -> None:
    assert parse_settings(["cluster.workers=[1, 4]", "cluster.nvme=null", "cluster.device=cuda"]) == {
        "cluster.workers": [1, 4],
        "cluster.nvme": None,
        "cluster.device": "cuda",
    }
    for word in ("optimizer.lr=1", "cluster.workers", "cluster"):
        with pytest.raises(InputError, match="found " + word):
            parse_settings([word])
    with pytest.raises(InputError, match=r"--set: found cluster\.workers=\[1, allowed: a value in YAML: "):
        parse_settings(["cluster.workers=[1"])


def test_a_jobs_settings_reach_the_config(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(JOB_SETTINGS, json.dumps({"cluster.workers": 2, "cluster.storage": "s3://b/runs"}))
    config = Config.load(ROOT / "params.yaml")
    assert (config.cluster.most, config.cluster.storage) == (2, "s3://b/runs")


@pytest.mark.parametrize(
    ("remote", "expected"),
    [
        ({"url": "s3://b/p/dvc"}, "s3://b/p/runs"),
        ({"url": "s3://b/p/dvc/", "region": "eu-north-1"}, "s3://b/p/runs?region=eu-north-1"),
        (
            {"url": "s3://b/dvc", "endpointurl": "http://1.2.3.4:9000"},
            "s3://b/runs?endpoint_override=1.2.3.4:9000&scheme=http&region=us-east-1",
        ),
    ],
)
def test_checkpoints_lie_beside_the_remote(
    remote: dict[str, Any], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    assert storage_beside(remote) == expected


def test_dvc_is_told_to_pull() -> None:
    assert with_pull(["dvc", "repro", "train"]) == ["dvc", "repro", "--pull", "--allow-missing", "train"]
    words = ["dvc", "exp", "run", "--pull", "-S", "a=1"]
    assert with_pull(words) == ["dvc", "exp", "run", "--allow-missing", "--pull", "-S", "a=1"]


def test_what_dvc_knows_of_a_checkout(checkout: Path) -> None:
    dvc_folder = checkout / ".dvc"
    dvc_folder.mkdir()
    (checkout / "raw").mkdir()
    (checkout / "dvc.yaml").write_text(STAGES)
    config = dvc_folder / "config"
    for text, message in (("", "no default remote"), ("['remote \"here\"']\n    url = /tmp/here\n", "no cluster sees")):
        config.write_text(("[core]\n    remote = here\n" if text else "") + text)
        with pytest.raises(InputError, match=message), open_repo(checkout):
            pass
    config.write_text("[core]\n    remote = s\n['remote \"s\"']\n    url = s3://b/p/dvc\n    secret_access_key = x\n")
    with open_repo(checkout) as repository:
        assert read_in_part(repository) == []  # nothing to fetch yet
    (checkout / "dvc.lock").write_text(LOCK)
    with open_repo(checkout) as repository:
        assert read_in_part(repository) == ["data", "raw/more"]
        assert uncached(repository) == ["report"]
        names = ["raw/1.png", "raw/more/2.png", "data/x", "notes"]
        assert read_but_not_sent(repository, names) == ["raw/1.png"]
    (checkout / "raw" / "1.png").write_text("")
    git(checkout, "add", "dvc.yaml", "dvc.lock", ".dvc")
    git(checkout, "commit", "--quiet", "--message", "stages")
    with pytest.raises(InputError, match=r"raw/1.png: read by a stage, and neither in git nor in DVC"):
        Submission.open(checkout)
    (checkout / "raw" / "1.png").unlink()
    (checkout / "dvc.yaml").write_text("stages:\n  make: [\n")
    git(checkout, "commit", "--all", "--quiet", "--message", "broken stages")
    with pytest.raises(InputError, match=r"^DVC: unable to read: '.*dvc.yaml', .*; `dvc status` shows where$"):
        Submission.open(checkout)
    git(checkout, "reset", "--quiet", "--hard", "HEAD^")
    submission = Submission.open(checkout)
    assert submission.remote["url"] == "s3://b/p/dvc"
    assert "secret_access_key" not in submission.remote
    shutil.copy(ROOT / "params.yaml", checkout)
    spec = submission.job_spec(["dvc", "repro"], {"cluster.workers": 2})
    assert NAME.fullmatch(spec.job)
    assert spec.job.startswith("my-project-")
    assert spec.job.endswith(spec.head[:7])
    assert spec.settings["cluster.storage"].startswith("s3://b/p/runs")
    assert "cluster.device" not in spec.settings
    assert "cluster.gpus" not in spec.settings
    assert submission.job_spec(["dvc", "repro"], {}, gpu_nodes=True).settings["cluster.device"] == "cuda"
    wished = submission.job_spec(["dvc", "repro"], {"cluster.device": "cpu"}, gpu_nodes=True)
    assert wished.settings["cluster.device"] == "cpu"
    with pytest.raises(InputError, match="workers"):
        submission.job_spec(["dvc", "repro"], {"cluster.workers": 0})
    for other in (["python", "-m", "pipelines.search"], ["dvc"], ["dvc", "exp", "show"]):
        with pytest.raises(InputError, match=r"allowed: dvc repro \.\.\., dvc exp run"):
            submission.job_spec(other, {})
    with pytest.raises(InputError, match="allowed: without --queue, with which nothing would run"):
        submission.job_spec(["dvc", "exp", "run", "--queue", "-S", "a=1"], {})
    shown = (ROOT / "params.yaml").read_text().replace("\n  gpus: ", "\n  gpus: [0] ")
    (checkout / "params.yaml").write_text(shown)  # of this machine
    assert submission.job_spec(["dvc", "repro"], {}).settings["cluster.gpus"] is None


def test_a_cluster_that_runs_already_is_not_ours() -> None:
    running = launcher("http://127.0.0.1:8265/")
    for do in (running.up, running.down, running.attach, running.logs):
        with pytest.raises(InputError, match=r"http://127.0.0.1:8265: .* not ours to"):
            do(False)
    with running.dashboard() as address:
        assert address == "http://127.0.0.1:8265"


@pytest.fixture
def results(tmp_path: Path) -> JobResults:
    """A results on this machine's disk."""
    return JobResults(
        SimpleNamespace(fs=SimpleNamespace(fs=LocalFileSystem(auto_mkdir=True)), path=f"{tmp_path}/bucket/dvc")
    )


def leave(
    checkout: Path, results: JobResults, tmp_path: Path, changes: dict[str, str | None], command: str = "dvc repro"
) -> str:
    """What a job leaves that changed some files of a checkout's commit."""
    sent = commit_to_send(checkout)
    write_bundle(checkout, sent, tmp_path / "snapshot.bundle")
    there = tmp_path / "there"
    unpack(tmp_path / "snapshot.bundle", there, sent)
    for name, text in changes.items():
        (there / name).unlink(missing_ok=True) if text is None else (there / name).write_text(text)
    git(there, "add", "--all")
    commit = git(there, "commit-tree", git(there, "write-tree"), "-p", sent, "-m", "left")
    git(there, "update-ref", "refs/infra/result", commit)
    git(there, "bundle", "create", "--quiet", str(tmp_path / BUNDLE), "refs/infra/result", f"^{sent}")
    job = "p-20260101-000000-0123456"
    about = {"state": "succeeded", "at": "now", "command": command.split(), "head": sent}
    results.write(job, RESULT, json.dumps(about).encode())
    results.write(job, BUNDLE, (tmp_path / BUNDLE).read_bytes())
    return job


def dvc_in(checkout: Path) -> None:
    (checkout / ".dvc").mkdir()
    (checkout / ".dvc" / "config").write_text(
        "[core]\n    analytics = false\n    remote = s\n['remote \"s\"']\n    url = /x\n"
    )


def test_results_come_home(checkout: Path, results: JobResults, tmp_path: Path) -> None:
    job = leave(checkout, results, tmp_path, {"a": "result\n", "b": None, "c": "new\n"})
    dvc_in(checkout)
    fetch(checkout, results, job, dry_run=True)
    assert (checkout / "a").read_text() == "a 2\n"
    fetch(checkout, results, job, dry_run=False)
    assert ((checkout / "a").read_text(), (checkout / "c").read_text()) == ("result\n", "new\n")
    assert not (checkout / "b").exists()
    assert git_lines(checkout, "for-each-ref", "--format=%(refname)") == ["refs/heads/main"]
    fetch(checkout, results, job, dry_run=False)  # again: nothing to bring


def test_an_experiment_that_did_not_end_changes_no_file(
    checkout: Path,
    results: JobResults,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without an experiment, its bundle has every file that it changed, parameters too."""
    job = leave(checkout, results, tmp_path, {"a": "theirs\n", "c": "new\n"}, "dvc exp run -S a=1")
    fetched: list[str] = []

    class Repository:
        def fetch(self, revs: list[str], workspace: bool) -> None:
            fetched.extend(git(checkout, "show", f"{rev}:a") for rev in revs)

    monkeypatch.setattr(fetch_results, "open_repo", lambda folder: nullcontext(Repository()))
    monkeypatch.setattr(fetch_results, "remote", lambda repository: {"url": "s3://b/p/dvc"})
    for dry_run in (True, False):
        fetch(checkout, results, job, dry_run)
        assert "no experiment" in capsys.readouterr().out
        assert git(checkout, "status", "--porcelain") == ""
        assert fetched == ([] if dry_run else ["theirs"])
    assert git_lines(checkout, "for-each-ref", "--format=%(refname)") == ["refs/heads/main"]


def test_what_was_changed_here_is_not_overwritten(checkout: Path, results: JobResults, tmp_path: Path) -> None:
    job = leave(checkout, results, tmp_path, {"a": "result\n", "b": "result\n", "c": "result\n"})
    dvc_in(checkout)
    (checkout / "a").write_text("mine\n")
    (checkout / "c").write_text("mine, and not in git\n")
    git(checkout, "commit", "--all", "--quiet", "--message", "mine")
    with pytest.raises(InputError, match=r"^a, c: changed here"):
        fetch(checkout, results, job, dry_run=False)
    assert (checkout / "a").read_text() == "mine\n"
    assert (checkout / "b").read_text() == "b\n"


def test_an_unknown_job_and_an_unknown_commit(checkout: Path, results: JobResults, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no result\.json of it; `python -m infra fetch` lists"):
        fetch(checkout, results, "p-20260101-000000-aaaaaaa", dry_run=False)
    job = leave(checkout, results, tmp_path, {"a": "result\n"})
    with pytest.raises(InputError, match=r"has no result\.json of it"):
        fetch(checkout, results, "p-20260101-000000-aaaaaaa", dry_run=False)
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    git(stranger, "init", "--quiet")
    with pytest.raises(InputError, match="is not in this repository"):
        fetch(stranger, results, job, dry_run=False)


def test_the_entrypoint_runs_the_commits_own_runner(checkout: Path, tmp_path: Path) -> None:
    """With what Ray sends to the head node alone: the files of the working_dir."""
    runner = checkout / "infra" / "jobs" / "runner.py"
    runner.parent.mkdir(parents=True)
    runner.write_text("import sys, pathlib; print(sys.argv[1], pathlib.Path.cwd(), pathlib.Path('a').read_text())")
    (checkout / "a").write_text("changed")
    git(checkout, "add", "--all")
    git(checkout, "commit", "--quiet", "--message", "a runner")
    shutil.copy(ROOT / "params.yaml", checkout)
    submission = Submission(checkout, commit_to_send(checkout), {"url": "s3://b/dvc"})
    spec, sent = submission.job_spec(["dvc", "repro"], {}), dict[str, Any]()
    with submission.working_dir(spec) as folder:
        submit_job(SimpleNamespace(submit_job=lambda **job: sent.update(job)), spec, folder)
        python, file = sent["entrypoint"].split()
        environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}
        done = subprocess.run([python, file], cwd=folder, env=environment, capture_output=True, text=True)
    job = tmp_path / ".cache" / "llm4seg" / "jobs" / spec.job
    assert done.stdout.split() == [str(job), str(job / "checkout"), "changed"], done.stderr
    assert JobSpec.read(job) == spec
