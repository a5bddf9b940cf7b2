"""Ends a node that has had nothing to do for some time, whoever was to end it: `python idle.py --help`."""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable

import psutil
from ray.job_submission import JobSubmissionClient
from ray.util.state import list_nodes

DASHBOARD = "http://127.0.0.1:8265"  # the head's own
UNFINISHED = ("PENDING", "RUNNING")
LOOK_EVERY = 60  # seconds


def ray_is_here() -> bool:
    """Whether this node belongs to a cluster; a worker's raylet ends soon after its head has gone."""
    return any(process.info["name"] == "raylet" for process in psutil.process_iter(["name"]))


def head_is_needed(dashboard: str) -> bool:
    """Whether the cluster has a job that has not ended, or a node besides the head. No answer counts as no."""
    try:
        if any(str(job.status) in UNFINISHED for job in JobSubmissionClient(dashboard).list_jobs()):
            return True
        return any(not node.is_head_node for node in list_nodes(dashboard, filters=[("state", "=", "ALIVE")]))
    except (RuntimeError, OSError) as error:  # what Ray's clients raise while there is no dashboard
        print(f"idle: the dashboard does not answer: {error}", file=sys.stderr, flush=True)
        return False


def wait_until_idle(needed: Callable[[], bool], seconds: float, look_every: float = LOOK_EVERY) -> None:
    """Return once nothing has been needed for so long; the clock starts anew whenever something is."""
    last_needed = time.monotonic()
    while time.monotonic() - last_needed < seconds:
        time.sleep(look_every)
        if needed():
            last_needed = time.monotonic()


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Wait until this node has had nothing to do for so many minutes, then run a command. A node has "
        "something to do while Ray runs on it; a head, while it has an unfinished job or a worker.",
        epilog="example: python idle.py --head --minutes 30 -- sudo shutdown -h now",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--head", action="store_true", help="this is the head node")
    parser.add_argument("--dashboard", default=DASHBOARD, help="the head's; default: %(default)s")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--look-every", type=float, default=LOOK_EVERY, help="seconds; default: %(default)s")
    parser.add_argument("then", nargs="+", metavar="COMMAND", help="what to run in the end")
    options = parser.parse_args()
    os.environ["RAY_AUTH_MODE"] = "token"
    needed = (lambda: ray_is_here() and head_is_needed(options.dashboard)) if options.head else ray_is_here
    wait_until_idle(needed, 60 * options.minutes, options.look_every)
    print(f"idle: nothing to do for {options.minutes:g} minutes", file=sys.stderr, flush=True)
    sys.exit(subprocess.run(options.then).returncode)


if __name__ == "__main__":
    main()
