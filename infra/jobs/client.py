"""Ray Jobs, seen from the laptop: send one, follow its log, ask it to stop."""

import asyncio
import contextlib
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infra.jobs.connection import LOST, connected
from infra.jobs.job_spec import Order
from infra.launchers import launcher
from llm4seg.utils.errors import InputError, UserError

STOP_SECONDS = 600  # from SIGTERM to SIGKILL: to save a checkpoint and what is finished
RETRIES, PAUSE = 10, 1.0  # seconds


@contextmanager
def jobs_of(cluster: str) -> Iterator[Any]:
    """Lend Ray's client of a cluster's jobs."""
    with launcher(cluster).dashboard() as address, connected(address) as client:
        yield client


def send(client: Any, order: Order, folder: Path) -> None:
    """Submit the job whose order, tree and entry are in a folder. Its driver asks for no core."""
    client.submit_job(
        entrypoint="python enter.py",
        submission_id=order.job,
        runtime_env={
            "working_dir": str(folder),
            "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)},
        },
        metadata={"commit": order.head, "command": " ".join(order.command), "user": order.author["NAME"]},
        entrypoint_num_cpus=0,
    )


def find(client: Any, job: str) -> Any:
    """Ray's details of a job. Raises InputError naming those there are."""
    try:
        return client.get_job_info(job)
    except RuntimeError as error:
        if "status code 404" not in str(error):
            raise
        others = [one.submission_id for one in client.list_jobs() if one.submission_id]
        known = f"there are {', '.join(others[-3:])}" if others else "it has run none"
        raise InputError(f"{job}: no such job on this cluster; {known}") from None


class Follower:
    """Prints a job's log to its end; where a connection is lost, the next one goes on."""

    def __init__(self, cluster: str, job: str) -> None:
        self._cluster, self._job = cluster, job
        self._shown = 0  # characters
        self._known = False  # whether the cluster has the job: from then on, all that fails is the connection

    def follow(self) -> Any:
        """From the log's beginning to its end, whenever that is; returns Ray's details of the job then."""
        failures, why = 0, "it ends at once"
        while failures <= RETRIES:
            before = self._shown
            try:
                with jobs_of(self._cluster) as client:
                    details = self._to_the_end(client)
                if details.status.is_terminal():
                    return details
            except (UserError, *LOST) as error:
                if not self._known:
                    raise
                why = str(error)
            failures = 0 if self._shown > before else failures + 1
            time.sleep(PAUSE)
        raise InputError(f"{self._job} may go on, but the connection was lost and does not come back: {why}")

    def _to_the_end(self, client: Any) -> Any:
        find(client, self._job)
        self._known = True
        with contextlib.suppress(*LOST):
            asyncio.run(self._print(client))
        return client.get_job_info(self._job)

    async def _print(self, client: Any) -> None:
        seen = 0
        async for text in client.tail_job_logs(self._job):
            sys.stdout.write(text[max(0, self._shown - seen) :])
            sys.stdout.flush()
            seen += len(text)
            self._shown = max(self._shown, seen)
