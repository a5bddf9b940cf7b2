"""A stand-in for kubectl and the Kubernetes cluster behind it: objects are files, KubeRay starts heads at once.

`on_path` puts it on PATH as `kubectl`: a small program that sends its arguments to a thread of the tests' process. It
refuses what an API server would (tests/kube.py), finds by label, and writes each call with its standard input to
calls.jsonl. A file `stuck` keeps pods alive after their cluster.
"""

import argparse
import json
import os
import socketserver
import sys
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.kube import refused

Object = dict[str, Any]

PROGRAM = """#!{python} -IS
import json, socket, sys
words = sys.argv[1:]
given = sys.stdin.read() if words[-2:] == ["-f", "-"] else None
with socket.create_connection(("127.0.0.1", {port})) as server:
    server.sendall(json.dumps([{state!r}, words, given]).encode())
    server.shutdown(socket.SHUT_WR)
    error, output = json.load(server.makefile())
if error is not None:
    sys.exit(error)
print(output, flush=True)
if "port-forward" in words:
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Dashboard(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"the dashboard")

    dashboard = HTTPServer(("127.0.0.1", 0), Dashboard)
    print(f"Forwarding from 127.0.0.1:{{dashboard.server_port}} -> 8265", flush=True)
    dashboard.serve_forever()
"""


class RefusedError(Exception):
    """What kubectl prints before it ends with exit code 1."""


def on_path(folder: Path, monkeypatch: Any) -> Path:
    """Make it the `kubectl` of this test; returns the folder of its state."""
    programs, state = folder / "bin", folder / "kubernetes"
    programs.mkdir()
    state.mkdir()
    program = programs / "kubectl"
    program.write_text(PROGRAM.format(python=sys.executable, port=_server(), state=str(state)), encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return state


@cache
def _server() -> int:
    """The port of the thread that answers all programs."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            state, words, given = json.load(self.rfile)
            try:
                reply = [None, run(Path(state), words, given)]
            except RefusedError as error:
                reply = [str(error), ""]
            self.wfile.write(json.dumps(reply).encode())

    server = socketserver.TCPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port: int = server.server_address[1]
    return port


def calls(state: Path) -> list[dict[str, Any]]:
    """All calls so far: their arguments and standard input."""
    log = state / "calls.jsonl"
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []


def objects(state: Path) -> dict[str, Object]:
    """All objects by kind and name: rayclusters/llm4seg."""
    return {file.stem.replace("__", "/"): json.loads(file.read_text()) for file in sorted(state.glob("*__*.json"))}


def put(state: Path, thing: Object) -> str:
    name = f"{plural(thing['kind'])}__{thing['metadata']['name']}"
    (state / f"{name}.json").write_text(json.dumps(thing))
    return name.replace("__", "/")


def plural(kind: str) -> str:
    kind = kind.lower().split(".")[0].split("/")[0]
    return kind if kind.endswith("s") else f"{kind}s"


def run(state: Path, words: list[str], given: str | None) -> str:
    """What kubectl prints for a command. Raises RefusedError."""
    with (state / "calls.jsonl").open("a") as log:
        log.write(json.dumps({"words": words, "given": given}) + "\n")
    parser = argparse.ArgumentParser()
    parser.add_argument("-n", dest="namespace")
    parser.add_argument("-f", dest="file", nargs="?", const=True)
    parser.add_argument("-l", dest="labels", default="")
    parser.add_argument("-o", dest="output", default="")
    parser.add_argument("-c", dest="container")
    options, (verb, *rest) = parser.parse_known_args(words)
    return VERBS[verb](state, options, rest, given) if verb in VERBS else f"{verb} {rest}"


def _parts(options: argparse.Namespace, given: str | None) -> list[Object]:
    text = given if given is not None else Path(options.file).read_text(encoding="utf-8")
    parts = list(yaml.load_all(text, yaml.CSafeLoader))
    return parts[0]["items"] if parts[0]["kind"] == "List" else parts


def _apply(state: Path, options: argparse.Namespace, words: list[str], given: str | None) -> str:
    applied = []
    for part in _parts(options, given):
        if why := _refused(json.dumps(part)):
            raise RefusedError(f"Error from server (BadRequest): {why}")
        if part["kind"] == "RayCluster":
            _start_head(state, part, part["spec"])
            part["status"] = {"state": "ready"}
        applied.append(f"{put(state, part)} serverside-applied")
    return "\n".join(applied)


@cache
def _refused(part: str) -> str | None:
    return refused(json.loads(part))


def _start_head(state: Path, owner: Object, spec: Object) -> None:
    """Create the pod that KubeRay makes of a head group."""
    template = spec["headGroupSpec"]["template"]
    labels = template["metadata"]["labels"] | {"ray.io/node-type": "head", "ray.io/group": "headgroup"}
    metadata = {"name": f"{owner['metadata']['name']}-head-x", "labels": labels}
    put(state, {"kind": "Pod", "metadata": metadata, "spec": template["spec"], "status": {"phase": "Running"}})


def _delete(state: Path, options: argparse.Namespace, words: list[str], given: str | None) -> str:
    names = [word for word in words if not word.startswith("-")]
    if given:
        names = [f"{part['kind']}/{part['metadata']['name']}" for part in _parts(options, given)]
    for name in names:
        kind, _, own = name.partition("/")
        (state / f"{plural(kind)}__{own}.json").unlink(missing_ok=True)
        if plural(kind) == "rayclusters" and not (state / "stuck").exists():
            (state / f"pods__{own}-head-x.json").unlink(missing_ok=True)
    return ""


def _get(state: Path, options: argparse.Namespace, words: list[str], given: str | None) -> str:
    kinds, _, name = words[0].partition("/")
    wanted = {plural(kind) for kind in kinds.split(",")}
    labels = dict(pair.split("=") for pair in options.labels.split(",") if pair)
    found = [
        thing
        for thing in objects(state).values()
        if plural(thing["kind"]) in wanted
        and labels.items() <= thing["metadata"].get("labels", {}).items()
        and (not name or thing["metadata"]["name"] == name)
    ]
    if options.output == "name":
        return "\n".join(f"{thing['kind'].lower()}/{thing['metadata']['name']}" for thing in found)
    return "".join(map(json.dumps, found)) if name else json.dumps({"items": found})


def _wait(state: Path, options: argparse.Namespace, words: list[str], given: str | None) -> str:
    kind, _, name = words[0].partition("/")
    there = objects(state).get(f"{plural(kind)}/{name}")
    if there is None:
        raise RefusedError("NotFound")
    wanted = next(word.partition("=")[2] for word in words if word.startswith("--for="))
    path, _, value = wanted.removeprefix("jsonpath={.status.").partition("}=")
    if value and there.get("status", {}).get(path) != value:
        raise RefusedError(f"error: timed out waiting for the condition on {kind}/{name}")
    return "condition met"


VERBS: dict[str, Callable[[Path, argparse.Namespace, list[str], str | None], str]] = {
    "apply": _apply,
    "delete": _delete,
    "get": _get,
    "wait": _wait,
    "config": lambda *_: "stand-in",
}
