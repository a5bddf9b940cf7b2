"""An S3-compatible server process on this machine, with an empty bucket, and what was asked of it."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
ENVIRONMENT = {**KEYS, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
BUCKET = "llm4seg"


@dataclass(frozen=True)
class S3:
    """A server that runs: its address, and its log of requests."""

    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def storage(self, prefix: str) -> str:
        """An address in the form that cluster.storage takes."""
        return f"s3://{BUCKET}/{prefix}?endpoint_override=127.0.0.1:{self.port}&scheme=http&region=us-east-1"

    def got(self, prefix: str) -> list[str]:
        """Every file below a prefix that somebody downloaded, once for each time; DVC's lists of files do not count."""
        found: list[str] = re.findall(rf'"GET /{BUCKET}/({prefix}/[^ ?]+) HTTP', self.log.read_text())
        return [name for name in found if not name.endswith(".dir")]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(port: int) -> None:
    for _ in range(600):
        with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.1)
    raise TimeoutError(f"nothing answers on port {port}")


@contextmanager
def serving(log: Path) -> Iterator[S3]:
    """Lend a server, with an empty bucket."""
    server = S3(free_port(), log)
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(server.port)]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | ENVIRONMENT)
    try:
        wait_for(server.port)
        boto3.client("s3", endpoint_url=server.url).create_bucket(Bucket=BUCKET)
        yield server
    finally:
        process.terminate()
        process.wait()
