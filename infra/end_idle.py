"""Ends an idle RayCluster on Kubernetes; run every few minutes by a CronJob, in a pod of its own.

The node image carries this file alone, so it imports Python's own library alone. KubeRay 1.7 gives back idle workers
(`autoscalerOptions.idleTimeoutSeconds`) but ends no RayCluster, however long it is idle.
"""

import argparse
import json
import os
import ssl
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")  # where Kubernetes puts a pod's identity
RUNNING = ("PENDING", "RUNNING")


def main(words: list[str] | None = None) -> None:
    """Delete the cluster if it is idle or too old; say what was found in any case."""
    options = argument_parser().parse_args(words)
    cluster = f"/apis/ray.io/v1/namespaces/{(ACCOUNT / 'namespace').read_text()}/rayclusters/{options.cluster}"
    try:
        found = kubernetes("GET", cluster)
    except HTTPError as error:
        if error.code != 404:
            raise
        print("no cluster")
        return
    began, now = datetime.fromisoformat(found["metadata"]["creationTimestamp"]).timestamp(), time.time()
    reason = reason_to_end(began, now, options, options.dashboard or f"http://{options.cluster}-head-svc:8265")
    if reason:
        kubernetes("DELETE", cluster)
    print(reason or "in use")


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="example: end_idle.py llm4seg --idle-minutes 30 --hours 24"
    )
    parser.add_argument("cluster", help="the RayCluster's name, in this pod's namespace")
    parser.add_argument("--idle-minutes", type=float, required=True, help="without a job for so long, it ends")
    parser.add_argument("--hours", type=float, required=True, help="after so long, it ends in any case")
    parser.add_argument("--dashboard", help="Ray's dashboard; else that of the cluster's head service")
    return parser


def reason_to_end(began: float, now: float, options: argparse.Namespace, dashboard: str) -> str | None:
    """The reason to end a cluster that began then, if there is one. A head that does not answer is none."""
    if now - began > options.hours * 3600:
        return f"ended: older than {options.hours:g} hours"
    try:
        jobs = ray_jobs(dashboard)
    except (URLError, TimeoutError) as error:
        print(f"{dashboard} does not answer: {error}", file=sys.stderr)
        return None
    if now - last_use(jobs, began, now) > options.idle_minutes * 60:
        return f"ended: no job for {options.idle_minutes:g} minutes"
    return None


def last_use(jobs: list[dict[str, Any]], began: float, now: float) -> float:
    """When a job ran last: now, if one does; when the cluster began, if none ever did."""
    if any(job["status"] in RUNNING for job in jobs):
        return now
    return max([began, *((job["end_time"] or 0) / 1000 for job in jobs)])


def ray_jobs(dashboard: str) -> list[dict[str, Any]]:
    """Ray's list of submitted jobs and drivers."""
    request = Request(f"{dashboard}/api/jobs/", headers={"Authorization": f"Bearer {os.environ['RAY_AUTH_TOKEN']}"})
    with urlopen(request, timeout=30) as response:
        found: list[dict[str, Any]] = json.load(response)
    return found


def kubernetes(method: str, path: str) -> dict[str, Any]:
    """A request to the Kubernetes API, as this pod's service account."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT_HTTPS"]
    token = (ACCOUNT / "token").read_text()
    request = Request(f"https://{host}:{port}{path}", method=method, headers={"Authorization": f"Bearer {token}"})
    trusted = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    with urlopen(request, timeout=30, context=trusted) as response:
        found: dict[str, Any] = json.load(response)
    return found


if __name__ == "__main__":
    main()
