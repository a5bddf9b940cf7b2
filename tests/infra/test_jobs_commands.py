"""The commands around a job: nothing of it is lost on the way, and no option goes unheard."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem

from infra.__main__ import main
from infra.commands import fetch, submit
from infra.jobs.client import cluster_of
from infra.jobs.dvc_repo import bucket_and_prefix
from infra.jobs.results import BUNDLE, RESULT, JobResults
from infra.launchers import launcher
from llm4seg.utils.errors import InputError

JOBS = ("p-20260101-000000-0123456", "p-20260102-000000-0123456")


class Submission:
    """Sends nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def job_spec(self, words: list[str], settings: dict[str, Any], gpu_nodes: bool) -> Any:
        return SimpleNamespace(job=JOBS[0])

    def describe(self, spec: Any) -> None:
        pass

    def working_dir(self, spec: Any) -> Any:
        return nullcontext(self.folder)


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What `submit` does, in order, with a cluster that takes a job."""
    seen: list[str] = []

    @contextmanager
    def tunnel(cluster: str) -> Iterator[None]:
        seen.append("tunnel")
        yield

    submission = Submission(tmp_path)
    monkeypatch.setattr(submit, "Submission", SimpleNamespace(open=lambda folder: submission))
    monkeypatch.setattr(submit, "call", lambda command, dry_run=False: seen.append(command[-1]))
    monkeypatch.setattr(submit, "has_gpu_nodes", lambda cluster: True)
    monkeypatch.setattr(submit, "stale_stages", lambda folder, spec: ["train"])
    monkeypatch.setattr(submit, "is_sky_task", lambda cluster: False)
    monkeypatch.setattr(submit, "job_client", tunnel)
    monkeypatch.setattr(submit, "submit_job", lambda *arguments: seen.append("send"))
    monkeypatch.setattr(submit, "launcher", lambda cluster: SimpleNamespace(dashboard=None))
    return seen


def test_a_job_is_known_before_it_can_run(
    events: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["submit", "c.yaml", "--detach", "--", "dvc", "repro"])
    assert events == ["push", "tunnel", "send"]
    assert cluster_of(tmp_path, JOBS[0]) == "c.yaml"
    assert f"sent as {JOBS[0]}" in capsys.readouterr().err


def test_a_job_is_known_although_the_user_leaves_while_it_is_sent(
    events: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(submit, "submit_job", interrupted)
    with pytest.raises(SystemExit):
        main(["submit", "c.yaml", "--", "dvc", "repro"])
    assert "tunnel" in events
    assert cluster_of(tmp_path, JOBS[0]) == "c.yaml"
    assert JOBS[0] in capsys.readouterr().err


def test_the_clusters_file_is_checked_before_anything_is_pushed(
    events: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "launcher", launcher)
    (tmp_path / "c.yaml").write_text("some: mapping")
    with pytest.raises(SystemExit, match=r"c\.yaml: provider\.type: found None, allowed: aws, local"):
        main(["submit", str(tmp_path / "c.yaml"), "--dry-run", "--", "dvc", "repro"])
    assert not events


def test_words_of_sky_without_an_end_are_named(
    events: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(submit, "is_sky_task", lambda cluster: True)
    with pytest.raises(SystemExit, match="--sky: found launch 'x, allowed: words as in a shell: No closing quotation"):
        main(["submit", "c.yaml", "--sky", "launch 'x", "--dry-run", "--", "dvc", "repro"])


def test_nothing_is_stopped_without_a_job() -> None:
    with pytest.raises(SystemExit, match="infra logs: --stop: found no job"):
        main(["logs", "infra/aws.yaml", "--stop"])


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JobResults:
    """A results on this machine's disk; its first job was killed before it could leave a result."""
    files = SimpleNamespace(fs=LocalFileSystem(auto_mkdir=True))
    made = JobResults(SimpleNamespace(fs=files, path=f"{tmp_path}/bucket/dvc"))
    about = {"state": "succeeded", "at": "now", "user": "Ada", "command": ["dvc", "repro"]}
    for job in JOBS:
        made.write(job, BUNDLE, b"")
    made.write(JOBS[1], RESULT, json.dumps(about).encode())
    monkeypatch.setattr(fetch.JobResults, "open", lambda folder: made)
    return made


def test_a_job_without_a_result_is_listed(
    results: JobResults, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    main(["fetch"])
    incomplete, complete = [line for line in capsys.readouterr().out.splitlines() if "p-2026" in line]
    assert (incomplete.count("?"), complete.count("?")) == (4, 0)
    assert not results.has_ended(JOBS[0])
    assert results.has_ended(JOBS[1])


def test_no_job_at_all_is_said(results: JobResults, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "bucket")
    main(["fetch"])
    assert capsys.readouterr().out == "fetch: no job has left anything in the bucket yet\n"


def test_every_job_named_is_fetched(results: JobResults, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []
    monkeypatch.setattr(fetch, "fetch", lambda folder, results, job, dry_run: fetched.append(job))
    main(["fetch", *JOBS])
    assert fetched == [*JOBS]
    fetched.clear()
    for wrong in (("aws.yaml",), (JOBS[0], "aws.yaml"), ("aws.yaml", "onprem.yaml", JOBS[0])):
        with pytest.raises(SystemExit, match=r"found aws\.yaml, allowed: names of jobs"):
            main(["fetch", *wrong])
    assert not fetched


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://my-lab/dvc", "the DVC remote: found 's3://my-lab', allowed: s3://BUCKET/PREFIX; .* sets it"),
        ("s3://my-lab/x/brain", "the DVC remote: found 's3://my-lab/x/brain', allowed: s3://BUCKET/PREFIX/dvc"),
        ("s3://my-lab/*/dvc", r"the DVC remote: prefix: found '\*', allowed"),
        ("gs://my-lab/brain/dvc", "the DVC remote: found 'gs://my-lab/brain', allowed"),
    ],
)
def test_clusters_may_use_the_folder_of_the_remote(
    url: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / ".dvc" / "config"
    config.parent.mkdir()
    text = "[core]\n    no_scm = True\n    remote = s\n['remote \"s\"']\n    url = {}\n"
    monkeypatch.chdir(tmp_path)
    config.write_text(text.format("s3://my-lab/team/brain/dvc/"))
    assert bucket_and_prefix(tmp_path) == ("my-lab", "team/brain")
    config.write_text(text.format(url))
    with pytest.raises(InputError, match=message):
        bucket_and_prefix(tmp_path)
