"""Ray Jobs, seen from the laptop: submit one, read its state, follow its log to its end."""

import asyncio
import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from infra.jobs.job_spec import JobSpec
from llm4seg.utils.errors import InputError, UserError
from llm4seg.utils.files import write_json

STOP_SECONDS = 600  # from SIGTERM to SIGKILL: to save a checkpoint and what is finished
RETRIES, PAUSE = 10, 1.0  # seconds
NOISY_LOGGERS = ("dashboard.modules.job.sdk", "dashboard.modules.dashboard_sdk", "_private.runtime_env.packaging")
RAY_ADDRESS_VARIABLES = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")  # Ray would take either for any address given
# what Ray's client raises for refusals and broken connections
CONNECTION_ERRORS = (RuntimeError, OSError, aiohttp.ClientError)
Dashboard = Callable[[], AbstractContextManager[str]]  # opens a way to Ray's dashboard; yields its http address


@contextmanager
def job_client(dashboard: Dashboard) -> Iterator[Any]:
    """Ray's `JobSubmissionClient` of a cluster. Raises InputError when no server answers, also later, or refuses."""
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for name in NOISY_LOGGERS:
        logging.getLogger(f"ray.{name}").setLevel(logging.WARNING)
    with dashboard() as address, _without(*RAY_ADDRESS_VARIABLES):
        try:
            yield JobSubmissionClient(address)
        except AuthenticationError as error:
            raise InputError(f"{address}: {' '.join(str(error).split())}") from None
        except ConnectionError:
            raise InputError(f"{address}: no Ray dashboard answers there") from None
        except CONNECTION_ERRORS as error:
            first, *rest = str(error).strip().splitlines() or ["no answer"]  # it may hold a traceback of the server's
            reason = f"{first} ... {rest[-1].strip()}" if rest else first
            raise InputError(f"{address}: Ray's dashboard: {reason}") from None


@contextmanager
def _without(*names: str) -> Iterator[None]:
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def submit_job(client: Any, spec: JobSpec, folder: Path) -> None:
    """Submit a job; `folder` holds its spec, its bundle and its entrypoint. Its driver reserves no core."""
    client.submit_job(
        entrypoint="python bootstrap.py",
        submission_id=spec.job,
        runtime_env={
            "working_dir": str(folder),
            "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)},
        },
        metadata={"commit": spec.head, "command": " ".join(spec.command), "user": spec.author["NAME"]},
        entrypoint_num_cpus=0,
    )


def job_info(client: Any, job: str) -> Any:
    """Ray's details of a job. Raises InputError if the cluster has none of this name."""
    try:
        return client.get_job_info(job)
    except RuntimeError as error:
        if "status code 404" not in str(error):
            raise
        raise InputError(
            f"{job}: no such job on this cluster; `python -m infra status` lists those there are"
        ) from None


class LogFollower:
    """Prints a job's log to its end; where a connection is lost, the next one goes on."""

    def __init__(self, dashboard: Dashboard, job: str) -> None:
        self._dashboard, self._job = dashboard, job
        self._shown = 0  # characters
        self._known = False  # whether the cluster has the job: from then on, all that fails is the connection

    def follow(self) -> Any:
        """From the log's beginning to its end, whenever that is; returns Ray's details of the job then."""
        failures, cause = 0, "it ends at once"
        while failures <= RETRIES:
            before = self._shown
            try:
                with job_client(self._dashboard) as client:
                    details = self._to_the_end(client)
                if details.status.is_terminal():
                    return details
            except (UserError, *CONNECTION_ERRORS) as error:
                if not self._known:
                    raise
                cause = str(error)
            failures = 0 if self._shown > before else failures + 1
            time.sleep(PAUSE)
        raise InputError(f"{self._job} may go on, but the connection was lost and does not come back: {cause}")

    def _to_the_end(self, client: Any) -> Any:
        job_info(client, self._job)
        self._known = True
        with contextlib.suppress(*CONNECTION_ERRORS):
            asyncio.run(self._print(client))
        return client.get_job_info(self._job)

    async def _print(self, client: Any) -> None:
        read = 0
        async for text in client.tail_job_logs(self._job):
            sys.stdout.write(text[max(0, self._shown - read) :])
            sys.stdout.flush()
            read += len(text)
            self._shown = max(self._shown, read)


def watch(cluster: str, dashboard: Dashboard, job: str) -> None:
    """Show a job's log to its end. Raises InputError with the cause when the job has failed."""
    print(f"Ctrl-C ends only this view; python -m infra logs {cluster} {job} shows it again", file=sys.stderr)
    try:
        details = LogFollower(dashboard, job).follow()
    except KeyboardInterrupt:
        print(f"\n{job} goes on: python -m infra logs {cluster} {job}", file=sys.stderr)
        raise
    status = str(details.status.value)
    ending = status.lower()
    if status == "FAILED" and details.driver_exit_code is not None:
        ending = f"failed with exit code {details.driver_exit_code}"
    elif status == "FAILED" and details.message:
        ending = f"failed ({details.message.strip().splitlines()[0]})"
    if status != "SUCCEEDED":
        raise InputError(f"{job}: {ending}; what is finished: python -m infra fetch {job}")
    print(f"{job}: {ending}; its results: python -m infra fetch {job}", file=sys.stderr)


def _record(folder: Path, job: str) -> Path:
    return folder / ".infra" / "jobs" / f"{job}.json"


def save_cluster(folder: Path, job: str, cluster: str) -> None:
    """Write down the cluster that a job was sent to, so that the job's name is enough to follow it."""
    write_json(_record(folder, job), {"cluster": cluster})


def cluster_of(folder: Path, job: str) -> str | None:
    """The cluster that a job was sent to from this checkout."""
    file = _record(folder, job)
    return str(json.loads(file.read_text(encoding="utf-8"))["cluster"]) if file.exists() else None
