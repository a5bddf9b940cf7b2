"""Ray Jobs, seen from the laptop: submit one, follow its log, read its state."""

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from infra.jobs.connection import CONNECTION_ERRORS, job_server
from infra.jobs.job_spec import JobSpec
from llm4seg.utils.errors import InputError, UserError

STOP_SECONDS = 600  # from SIGTERM to SIGKILL: to save a checkpoint and what is finished
RETRIES, PAUSE = 10, 1.0  # seconds
Dashboard = Callable[[], AbstractContextManager[str]]  # opens a way to Ray's dashboard; yields its http address


@contextmanager
def job_client(dashboard: Dashboard) -> Iterator[Any]:
    """Ray's client of a cluster's jobs, connected inside the block."""
    with dashboard() as address, job_server(address) as client:
        yield client


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
    """Ray's details of a job. Raises InputError naming those there are."""
    try:
        return client.get_job_info(job)
    except RuntimeError as error:
        if "status code 404" not in str(error):
            raise
        others = [one.submission_id for one in client.list_jobs() if one.submission_id]
        known = f"there are {', '.join(others[-3:])}" if others else "it has run none"
        raise InputError(f"{job}: no such job on this cluster; {known}") from None


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
