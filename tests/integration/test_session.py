"""A Ray session on this machine lets in nobody but its owner, and listens for browsers on this machine alone."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import psutil
import pytest
import ray

from llm4seg.cluster.ray_stop_signal import RayStopSignal
from llm4seg.cluster.session import ray_session
from llm4seg.cluster.stop_signal import stop_on_sigterm
from llm4seg.config import Config
from llm4seg.utils.errors import StopRequested
from tests.import_graph import ROOT
from tests.ray_internals import dashboard

VISITOR = """
import sys, ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False)
except ConnectionError as error:
    sys.exit(f"refused: {error}")
"""


@pytest.fixture(scope="module")
def session(workspace: Config) -> Iterator[None]:
    with ray_session(workspace.cluster):
        yield


def visitor(**environment: str) -> "subprocess.Popen[str]":
    """A process on this machine that connects."""
    command = [sys.executable, "-c", VISITOR, ray.get_runtime_context().gcs_address]
    return subprocess.Popen(command, env=os.environ | environment, stderr=subprocess.PIPE, text=True)


def test_nobody_connects_without_its_token(session: None) -> None:
    with visitor(RAY_AUTH_TOKEN="0" * 64) as stranger, visitor() as owner:
        assert "refused: " in stranger.communicate(timeout=300)[1]
        assert "refused: " not in owner.communicate(timeout=300)[1]
        assert owner.returncode == 0


def test_the_dashboard_tells_nothing_without_its_token(session: None) -> None:
    with pytest.raises(HTTPError) as raised:
        urlopen(f"http://{dashboard()}/api/v0/actors", timeout=60)
    assert raised.value.code == 401


def test_the_dashboard_listens_on_this_machine_alone(session: None) -> None:
    host, port = dashboard().split(":")
    assert host == "127.0.0.1"
    listening = [one.laddr for one in psutil.net_connections("inet") if one.status == psutil.CONN_LISTEN]
    assert {address.ip for address in listening if address.port == int(port)} == {"127.0.0.1"}


def ask_to_leave(seconds: float = 30) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(seconds)


def test_sigterm_is_not_kept_waiting_by_workers_that_have_not_begun(session: None) -> None:
    with stop_on_sigterm(RayStopSignal()), pytest.raises(StopRequested, match="did not wait for its workers"):
        ask_to_leave()


def test_sigterm_waits_for_workers_that_listen_unless_it_comes_twice(session: None) -> None:
    stop_signal = RayStopSignal()
    assert not stop_signal.stop_requested()
    with stop_on_sigterm(stop_signal):
        ask_to_leave(3)
        assert stop_signal.stop_requested()
        with pytest.raises(StopRequested):
            ask_to_leave()


START = """
import os
from pathlib import Path
import ray
from llm4seg.cluster.session import ray_session
from llm4seg.config import Config
from llm4seg.utils.logs import configure
configure()
with ray_session(Config.load(Path("params.yaml")).cluster):
    print(ray.get(ray.remote(lambda: os.getpid()).remote()) != os.getpid())
"""


@pytest.mark.slow
def test_it_starts_without_a_home_to_write_to_and_in_a_long_tmpdir(tmp_path: Path) -> None:
    long = tmp_path / (60 * "x") / (40 * "y")
    long.mkdir(parents=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = kept | {"HOME": "/proc", "TMPDIR": str(long)}
    done = subprocess.run([sys.executable, "-c", START], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr
    assert f"RAY_TMPDIR=/tmp/llm4seg-u{os.getuid()}" in done.stderr
