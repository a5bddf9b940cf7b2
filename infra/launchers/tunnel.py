"""A tunnel to the head's dashboard, which listens on the head's loopback: `ray dashboard` in the background."""

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence

from llm4seg.utils.errors import InputError

TIMEOUT = 60  # seconds


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def tunnel(command: Sequence[str], port: int) -> Iterator[str]:
    """The http address of what a command forwards to a port here; the command ends with the block."""
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    ) as process:
        try:
            _wait_for(port, process)
            yield f"http://127.0.0.1:{port}"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)  # ssh with it


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Return when the dashboard answers. Raises InputError when the command ends, with its last line, or time is up."""
    until = time.monotonic() + TIMEOUT
    while time.monotonic() < until and process.poll() is None:
        if _answers(port):
            return
        time.sleep(0.2)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    output = process.stdout.read().decode(errors="replace").split("\n") if process.stdout else []
    last = next((line.strip() for line in reversed(output) if line.strip()), "nothing")
    raise InputError(
        f"no tunnel to the dashboard; `ray dashboard` said: {last}; `python -m infra status` shows the nodes"
    )


def _answers(port: int) -> bool:
    """Whether there is a dashboard at the other end: ssh opens its port before it knows."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/version", timeout=5):
            return True
    except urllib.error.HTTPError:
        return True  # it wants the token
    except OSError:
        return False
