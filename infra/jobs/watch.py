"""A job's log on the laptop, followed until the job ends or the user presses Ctrl-C."""

import json
import sys
from pathlib import Path
from typing import Any

from infra.jobs.client import Dashboard, LogFollower
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import write_text


def _file(folder: Path, job: str) -> Path:
    return folder / ".infra" / "jobs" / f"{job}.json"


def save_cluster(folder: Path, job: str, cluster: str) -> None:
    """Write down the cluster that a job was sent to, so that the job's name is enough to follow it."""
    write_text(_file(folder, job), json.dumps({"cluster": cluster}) + "\n")


def cluster_of(folder: Path, job: str) -> str | None:
    """The cluster that a job was sent to from this checkout."""
    file = _file(folder, job)
    return str(json.loads(file.read_text())["cluster"]) if file.exists() else None


def watch(cluster: str, dashboard: Dashboard, job: str) -> None:
    """Show a job's log to its end. Raises InputError with the cause when the job has failed."""
    print(f"Ctrl-C ends only this view; python -m infra logs {cluster} {job} shows it again", file=sys.stderr)
    try:
        details = LogFollower(dashboard, job).follow()
    except KeyboardInterrupt:
        print(f"\n{job} goes on: python -m infra logs {cluster} {job}", file=sys.stderr)
        raise
    if details.status != "SUCCEEDED":
        raise InputError(f"{job}: {_ending(details)}; what is finished: python -m infra fetch {job}")
    print(f"{job}: {_ending(details)}; its results: python -m infra fetch {job}", file=sys.stderr)


def _ending(details: Any) -> str:
    """How a job ended, in a few words."""
    if details.status == "FAILED" and details.driver_exit_code is not None:
        return f"failed with exit code {details.driver_exit_code}"
    cause = (details.message or "").strip().splitlines()
    return str(details.status.value).lower() + (f" ({cause[0]})" if cause and details.status == "FAILED" else "")
