"""kubectl, called in the open, and what it answers."""

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


def feed(words: Sequence[str], parts: Sequence[dict[str, Any]], dry_run: bool) -> None:
    """Run kubectl on objects through its standard input: a secret in them is in no file and no list of processes."""
    named = ", ".join(f"{part['kind']} {part['metadata']['name']}" for part in parts)
    print(f"$ kubectl {' '.join(words)} -f -   # {named}", file=sys.stderr, flush=True)
    if not dry_run:
        objects = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(parts)})
        print(_run([*words, "-f", "-"], objects), end="", flush=True)


def answer(*words: str) -> str:
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
def forwarded(namespace: str, pod: str, port: int) -> Iterator[str]:
    """Lend the http address of a pod's port, through a tunnel from a free port of this machine."""
    _installed()
    command = ["kubectl", "-n", namespace, "port-forward", "--address", "127.0.0.1", pod, f":{port}"]
    with tempfile.TemporaryFile("w+") as said:  # a pipe that nobody reads would fill, and stop the tunnel
        tunnel = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT)
        try:
            yield f"http://127.0.0.1:{_port(tunnel, said)}"
        finally:
            tunnel.terminate()
            tunnel.wait()


def _port(tunnel: "subprocess.Popen[bytes]", said: Any) -> str:
    """The tunnel's end here, as soon as there is one."""
    while True:
        ended = tunnel.poll() is not None
        said.seek(0)
        text = said.read()
        if found := FORWARDING.search(text):
            return found[1]
        if ended:
            raise InputError(f"kubectl port-forward: {' '.join(text.split()) or 'ended'}")
        time.sleep(0.05)
