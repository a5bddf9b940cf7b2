"""A Ray session on this machine lets in nobody but its owner, and listens for browsers on this machine alone."""

import os
import subprocess
import sys
from collections.abc import Iterator
from urllib.error import HTTPError
from urllib.request import urlopen

import psutil
import pytest
import ray

from llm4seg.cluster.session import ray_session
from llm4seg.config import Config

STRANGER = """
import sys, ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False)
except Exception as error:
    sys.exit(f"refused: {error}")
"""


@pytest.fixture(scope="module")
def session(workspace: Config) -> Iterator[None]:
    with ray_session(workspace.cluster):
        yield


def dashboard() -> str:
    """Host and port."""
    return str(ray._private.worker.global_worker.node.webui_url)


def test_nobody_connects_without_its_token(session: None) -> None:
    command = [sys.executable, "-c", STRANGER, ray.get_runtime_context().gcs_address]
    environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "refused: " in done.stderr
    assert "token" in done.stderr.split("refused: ")[-1].lower()


def test_the_dashboard_tells_nothing_without_its_token(session: None) -> None:
    with pytest.raises(HTTPError) as raised:
        urlopen(f"http://{dashboard()}/api/v0/actors", timeout=60)
    assert raised.value.code == 401


def test_the_dashboard_listens_on_this_machine_alone(session: None) -> None:
    host, port = dashboard().split(":")
    assert host == "127.0.0.1"
    listening = [one.laddr for one in psutil.net_connections("inet") if one.status == psutil.CONN_LISTEN]
    assert {address.ip for address in listening if address.port == int(port)} == {"127.0.0.1"}
