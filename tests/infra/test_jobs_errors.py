"""A bucket that cannot be reached or refuses: a running job waits and goes on, the laptop says it in one line."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tenacity
from botocore.exceptions import EndpointConnectionError, NoCredentialsError
from dvc.exceptions import DvcException

from infra.jobs import errors, save
from infra.jobs.errors import retrying
from infra.jobs.job_spec import JobSpec
from infra.jobs.results import RESULT, RUNNING, JobResults
from infra.jobs.runner import JobRunner
from infra.jobs.save import Job
from llm4seg.utils.errors import InputError
from tests.import_graph import ROOT

LOST = EndpointConnectionError(endpoint_url="https://b.example/p?X-Amz-Signature=hidden")
JOB = "p-20260101-000000-0123456"


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A job's folder, with a checkout in which nothing is."""
    author = {"NAME": "Ada", "EMAIL": "ada@example.org"}
    JobSpec(JOB, ["dvc", "repro"], "0" * 40, {}, {"url": "s3://b/p/dvc"}, author).write(tmp_path)
    (tmp_path / "checkout" / ".dvc").mkdir(parents=True)
    return Job(tmp_path)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were waited, or would have been."""
    waited: list[float] = []
    monkeypatch.setattr(tenacity.nap.time, "sleep", waited.append)
    return waited


def failing(errors: list[Exception], calls: list[Any]) -> Callable[..., None]:
    """Something that fails so often and so, then takes note of what it was asked."""

    def do(*arguments: Any) -> None:
        if errors:
            raise errors.pop(0)
        calls.append(arguments)

    return do


@pytest.mark.parametrize("error", [LOST, NoCredentialsError(), DvcException("locked"), TimeoutError()])
def test_saving_is_tried_again(error: Exception, waits: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[Any] = []
    retrying(failing([error] * 3, calls))(RUNNING)
    assert (len(waits), calls) == (3, [(RUNNING,)])
    shown = capsys.readouterr().err
    assert shown.count("tried again for 300 s") == 1
    assert "hidden" not in shown


def test_what_no_waiting_mends_is_not_tried_again(waits: list[float]) -> None:
    with pytest.raises(InputError):
        retrying(failing([InputError("no such commit")], []))(RUNNING)
    assert not waits


def test_a_bucket_that_is_away_ends_no_job(job: Job, waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither before its command nor after it."""
    errors: list[Exception] = [LOST, LOST]
    calls: list[Any] = []
    monkeypatch.setattr(job, "restore", failing([LOST], []))
    monkeypatch.setattr(job, "save", failing(errors, calls))

    def command(work: JobRunner, words: list[str]) -> int:
        errors.extend([LOST, LOST])
        return 0

    monkeypatch.setattr(JobRunner, "_pull", lambda work: 0)
    monkeypatch.setattr(JobRunner, "_call", command)
    monkeypatch.setattr("signal.signal", lambda *arguments: None)
    assert JobRunner(job).run() == 0
    assert calls == [(RUNNING,), ("succeeded", 0)]
    assert len(waits) == 5


@pytest.mark.parametrize("error", [LOST, PermissionError("Forbidden"), DvcException("2 files failed to upload")])
def test_a_stage_begins_although_nothing_can_be_saved(
    job: Job, error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(errors, "TIMEOUT", 0.0)
    monkeypatch.setattr(Job, "save", failing([error], []))
    monkeypatch.setattr(sys, "argv", ["save", str(job.folder)])
    save.main()
    assert f"{JOB}: what is finished is not in the DVC remote yet" in capsys.readouterr().err


def test_a_stage_begins_although_saving_breaks(job: Job) -> None:
    """Here since DVC has no workspace there, which is no refusal of the bucket."""
    (job.checkout / ".dvc").rmdir()
    command = [str(job.shell()), "-c", "echo begun; exit 3"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("begun\n", 3)
    assert "no DVC workspace" in done.stderr


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (LOST, r'^s3://b/p/jobs: Could not connect to the endpoint URL: "https://b.example/p"$'),
        (NoCredentialsError(), r"^s3://b/p/jobs: Unable to locate credentials; credentials come from"),
        (PermissionError("Access Denied"), r"^s3://b/p/jobs: Access Denied; credentials come from"),
        (OSError(5, "Slow down"), r"^s3://b/p/jobs: \[Errno 5\] Slow down$"),
        (DvcException("no\nremote"), r"^DVC: no remote$"),
    ],
)
def test_the_laptop_says_it_in_one_line(error: Exception, message: str) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise error

    results = JobResults(
        SimpleNamespace(fs=SimpleNamespace(fs=SimpleNamespace(cat_file=refuse, ls=refuse)), path="b/p/dvc")
    )
    asked: list[Callable[[], Any]] = [results.files, lambda: results.has_ended(JOB), lambda: results.read(JOB, RESULT)]
    for ask in asked:
        with pytest.raises(InputError, match=message):
            ask()
