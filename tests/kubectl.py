"""A stand-in for kubectl and the Kubernetes cluster behind it: objects are files, KubeRay starts heads at once.

`on_path` puts it on PATH as `kubectl`. It refuses what an API server would (tests/kube.py), finds by label, and notes
each call with its standard input in calls.jsonl. A file `stuck` lets pods outlive their cluster.
"""

import argparse
import http.server
import json
import os
import sys
from pathlib import Path
from typing import Any

import yaml

STATE = "STAND_IN_KUBERNETES"
ROOT = Path(__file__).parent.parent


def on_path(folder: Path, monkeypatch: Any) -> Path:
    """Make it the `kubectl` of this test; returns the folder of its state."""
    programs, state = folder / "bin", folder / "kubernetes"
    programs.mkdir()
    state.mkdir()
    program = programs / "kubectl"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m tests.kubectl "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv(STATE, str(state))
    return state


def calls(state: Path) -> list[dict[str, Any]]:
    """Every call so far: its words, and what it was given."""
    log = state / "calls.jsonl"
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []


def objects(state: Path) -> dict[str, dict[str, Any]]:
    """What is there, by kind and name: rayclusters/llm4seg."""
    return {file.stem.replace("__", "/"): json.loads(file.read_text()) for file in sorted(state.glob("*__*.json"))}


def put(state: Path, thing: dict[str, Any]) -> str:
    name = f"{plural(thing['kind'])}__{thing['metadata']['name']}"
    (state / f"{name}.json").write_text(json.dumps(thing))
    return name.replace("__", "/")


def plural(kind: str) -> str:
    kind = kind.lower().split(".")[0].split("/")[0]
    return kind if kind.endswith("s") else f"{kind}s"


def main() -> None:
    state = Path(os.environ[STATE])
    parser = argparse.ArgumentParser()
    parser.add_argument("-n", dest="namespace")
    parser.add_argument("-f", dest="file", nargs="?", const=True)
    parser.add_argument("-l", dest="labels", default="")
    parser.add_argument("-o", dest="output", default="")
    parser.add_argument("-c", dest="container")
    parser.add_argument("--patch")
    options, words = parser.parse_known_args(sys.argv[1:])
    given = sys.stdin.read() if options.file == "-" else None
    with (state / "calls.jsonl").open("a") as log:
        log.write(json.dumps({"words": sys.argv[1:], "given": given}) + "\n")
    verb = words[0].replace("-", "_")
    globals().get(f"do_{verb}", lambda *_: print(f"{verb} {words[1:]}"))(state, options, words[1:], given)


def _parts(options: argparse.Namespace, given: str | None) -> list[dict[str, Any]]:
    text = given if given is not None else Path(options.file).read_text(encoding="utf-8")
    parts = list(yaml.safe_load_all(text))
    return parts[0]["items"] if parts[0]["kind"] == "List" else parts


def do_config(*_: Any) -> None:
    print("stand-in")


def do_apply(state: Path, options: argparse.Namespace, words: list[str], given: str | None) -> None:
    from tests.kube import refused

    for part in _parts(options, given):
        if why := refused(part):
            sys.exit(f"Error from server (BadRequest): {why}")
        before = objects(state).get(f"{plural(part['kind'])}/{part['metadata']['name']}", {})
        if part["kind"] == "RayCluster":
            start(state, part, part["spec"])
            part["status"] = {"state": "ready"}
        elif part["kind"] == "RayJob" and "status" in before:  # what others have set stays
            part = before | part | {"spec": before["spec"] | part["spec"]}
        elif part["kind"] == "RayJob" and not part["spec"].get("suspend"):
            start(state, part, part["spec"]["rayClusterSpec"])
            part["status"] = {"jobDeploymentStatus": "Waiting"}
        print(put(state, part), "serverside-applied")


def start(state: Path, owner: dict[str, Any], spec: dict[str, Any]) -> None:
    """What KubeRay makes of a head group: one pod."""
    template = spec["headGroupSpec"]["template"]
    labels = template["metadata"]["labels"] | {"ray.io/node-type": "head", "ray.io/group": "headgroup"}
    metadata = {"name": f"{owner['metadata']['name']}-head-x", "labels": labels}
    put(state, {"kind": "Pod", "metadata": metadata, "spec": template["spec"], "status": {"phase": "Running"}})


def do_delete(state: Path, options: argparse.Namespace, words: list[str], given: str | None) -> None:
    names = [w for w in words if not w.startswith("-")]
    if given:
        names = [f"{part['kind']}/{part['metadata']['name']}" for part in _parts(options, given)]
    for name in names:
        kind, _, own = name.partition("/")
        (state / f"{plural(kind)}__{own}.json").unlink(missing_ok=True)
        if plural(kind) in ("rayclusters", "rayjobs") and not (state / "stuck").exists():
            (state / f"pods__{own}-head-x.json").unlink(missing_ok=True)


def do_get(state: Path, options: argparse.Namespace, words: list[str], given: str | None) -> None:
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
        print("".join(f"{thing['kind'].lower()}/{thing['metadata']['name']}\n" for thing in found), end="")
    elif name:
        print("".join(map(json.dumps, found)), end="")
    else:
        print(json.dumps({"items": found}))


def do_wait(state: Path, options: argparse.Namespace, words: list[str], given: str | None) -> None:
    kind, _, name = words[0].partition("/")
    there = objects(state).get(f"{plural(kind)}/{name}")
    if there is None:
        sys.exit("NotFound")
    wanted = next(word.partition("=")[2] for word in words if word.startswith("--for="))
    path, _, value = wanted.removeprefix("jsonpath={.status.").partition("}=")
    if value and there.get("status", {}).get(path) != value:
        sys.exit(f"error: timed out waiting for the condition on {kind}/{name}")
    print("condition met")


def do_patch(state: Path, options: argparse.Namespace, words: list[str], given: str | None) -> None:
    kind, _, name = words[0].partition("/")
    thing = objects(state)[f"{plural(kind)}/{name}"]
    thing["spec"] |= json.loads(options.patch)["spec"]
    if thing["spec"].get("jobId") and "status" in thing:
        thing["status"]["jobDeploymentStatus"] = "Running"
    put(state, thing)


def do_port_forward(state: Path, options: argparse.Namespace, words: list[str], given: str | None) -> None:
    class Dashboard(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"the dashboard")

    server = http.server.HTTPServer(("127.0.0.1", 0), Dashboard)
    print(f"Forwarding from 127.0.0.1:{server.server_port} -> 8265", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
