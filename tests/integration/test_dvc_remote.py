"""A remote on S3: pushed from one clone, pulled into another, and nothing to run there."""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from tests.integration.project import Project

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
BUCKET = "llm4seg"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(port: int) -> None:
    for _ in range(300):
        with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.1)
    raise TimeoutError(f"nothing answers on port {port}")


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an S3-compatible server process with an empty bucket."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(port)
        boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}").create_bucket(Bucket=BUCKET)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_push_clone_pull_and_nothing_to_do(project: Project, s3: str, tmp_path: Path) -> None:
    project.dvc("remote", "add", "--default", "store", f"s3://{BUCKET}/results")
    project.dvc("remote", "modify", "store", "endpointurl", s3)
    project.commit("a remote")
    assert "pushed" in project.dvc("push")
    assert "Everything is up to date" in project.dvc("push")

    project.git("clone", "--quiet", str(project.folder), str(tmp_path / "elsewhere" / "clone"))
    clone = Project(tmp_path / "elsewhere" / "clone")
    assert not (clone.folder / "outputs" / "model").exists()
    assert "fetched" in clone.dvc("pull")
    for folder in ("outputs", "data"):
        assert contents(clone.folder / folder) == contents(project.folder / folder)
    assert "Data and pipelines are up to date." in clone.dvc("status")
    shown = clone.dvc("repro")
    assert "Running stage" not in shown
    assert "Data and pipelines are up to date." in shown
    assert clone.git("status", "--porcelain") == ""
