"""kubectl: each command is printed before it runs; its output is returned."""

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from shutil import which
from typing import Any

from llm4seg.utils.errors import InputError

FORWARDING = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+)")


def run_on_objects(words: Sequence[str], parts: Sequence[dict[str, Any]], dry_run: bool) -> None:
    """Run kubectl on objects through its standard input: a secret in them is in no file and no list of processes."""
    named = ", ".join(f"{part['kind']} {part['metadata']['name']}" for part in parts)
    print(f"$ kubectl {' '.join(words)} -f -   # {named}", file=sys.stderr, flush=True)
    if not dry_run:
        objects = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(parts)})
        print(_run([*words, "-f", "-"], objects), end="", flush=True)


def output(*words: str) -> str:
    """What kubectl prints."""
    return _run(words, None)


def _run(words: Sequence[str], given: str | None) -> str:
    _installed()
    done = subprocess.run(["kubectl", *words], input=given, capture_output=True, text=True)
    if done.returncode:
        raise InputError(
            f"kubectl {' '.join(words)}: {' '.join(done.stderr.split()) or f'exit code {done.returncode}'}"
        )
    return done.stdout


def _installed() -> None:
    if which("kubectl") is None:
        raise InputError("kubectl is not installed: https://kubernetes.io/docs/tasks/tools")


@contextmanager
def port_forward(namespace: str, pod: str, port: int) -> Iterator[str]:
    """The http address of a pod's port, through a tunnel from a free port of this machine."""
    _installed()
    command = ["kubectl", "-n", namespace, "port-forward", "--address", "127.0.0.1", pod, f":{port}"]
    with tempfile.TemporaryFile("w+") as log:  # a pipe that nobody reads would fill, and stop the tunnel
        tunnel = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield f"http://127.0.0.1:{_port(tunnel, log)}"
        finally:
            tunnel.terminate()
            tunnel.wait()


def _port(tunnel: "subprocess.Popen[bytes]", log: Any) -> str:
    """The tunnel's end here, as soon as there is one."""
    while True:
        ended = tunnel.poll() is not None
        log.seek(0)
        text = log.read()
        if found := FORWARDING.search(text):
            return found[1]
        if ended:
            raise InputError(f"kubectl port-forward: {' '.join(text.split()) or 'ended'}")
        time.sleep(0.05)
