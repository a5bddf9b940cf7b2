"""Real servers here: S3, Ray, a web server with and without ranged reads, the hub, and a proxy that counts."""

import base64
import contextlib
import hashlib
import http.server
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import boto3

from tests.import_graph import ROOT

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
ENVIRONMENT = {**KEYS, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
BUCKET = "llm4seg"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(port: int, host: str = "127.0.0.1") -> None:
    for _ in range(600):
        with contextlib.suppress(ConnectionError), socket.create_connection((host, port)):
            return
        time.sleep(0.1)
    raise TimeoutError(f"nothing answers on port {port}")


@dataclass(frozen=True)
class S3:
    """An S3-compatible server process: its port, its log of requests, and its address."""

    port: int
    log: Path
    host: str = "127.0.0.1"

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def storage(self, prefix: str) -> str:
        """An address in the form that cluster.storage takes."""
        return f"s3://{BUCKET}/{prefix}?endpoint_override={self.host}:{self.port}&scheme=http&region=us-east-1"

    def got(self, prefix: str) -> list[str]:
        """Downloads of files below a prefix, in order; without DVC's lists of files."""
        found: list[str] = re.findall(rf'"GET /{BUCKET}/({prefix}/[^ ?]+) HTTP', self.log.read_text())
        return [name for name in found if not name.endswith(".dir")]

    def empty(self) -> None:
        """Delete everything but one empty bucket."""
        urllib.request.urlopen(f"{self.url}/moto-api/reset", data=b"").close()
        boto3.Session().client("s3", endpoint_url=self.url).create_bucket(Bucket=BUCKET)
        os.truncate(self.log, 0)


@contextlib.contextmanager
def s3_server(log: Path, host: str = "127.0.0.1") -> Iterator[S3]:
    """Context manager of a server, which has no bucket before `empty`."""
    server = S3(free_port(), log, host)
    command = [sys.executable, "-m", "moto.server", "-H", host, "-p", str(server.port)]
    with log.open("a") as output:  # appended to, so that `empty` can cut it
        process = subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | ENVIRONMENT)
    try:
        wait_for(server.port, host)
        yield server
    finally:
        process.terminate()
        process.wait()


RAY = """
import sys
from pathlib import Path
import ray
from llm4seg.cluster.session import ray_session
from llm4seg.config import Config
with ray_session(Config.load(Path("params.yaml")).cluster):
    print(ray.get_runtime_context().gcs_address, flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def ray_server() -> Iterator[str]:
    """Lend the address of a Ray on this machine, of this user as any other, with his token; it ends with the block."""
    command = [sys.executable, "-c", RAY]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address, "Ray did not start"
        yield address
        process.stdin.close()


class CountingProxy:
    """Passes connections on to a port, counts all bytes that come back, and disturbs them.

    `cuts`: numbers of bytes after which a connection ends; `limit`: the bytes after which all connections end.
    `refusals`: HTTP statuses of the next connections. `rate`: bytes per second.
    """

    def __init__(self, target: int) -> None:
        self.sent = 0
        self.cuts: list[int] = []
        self.limit: int | None = None
        self.refusals: list[int] = []
        self.rate: float | None = None
        self._target = target
        self._counting = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                threading.Thread(target=self._serve, args=(self._listener.accept()[0],), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self.refusals:
            with client, contextlib.suppress(OSError):
                client.recv(1 << 16)
                client.sendall(f"HTTP/1.1 {self.refusals.pop(0)} No\r\nContent-Length: 0\r\n\r\n".encode())
            return
        with client, socket.create_connection(("127.0.0.1", self._target)) as server, contextlib.suppress(OSError):
            threading.Thread(target=self._upstream, args=(client, server), daemon=True).start()
            self._downstream(server, client)
            client.shutdown(socket.SHUT_RDWR)  # or the other thread's recv would hold the connection open
            server.shutdown(socket.SHUT_RDWR)

    def _upstream(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                server.sendall(data)
            server.shutdown(socket.SHUT_RDWR)

    def _downstream(self, server: socket.socket, client: socket.socket) -> None:
        while data := server.recv(1 << 14):
            part, last = self._counted(data)
            client.sendall(part)
            if self.rate is not None:
                time.sleep(len(part) / self.rate)
            if last:
                return

    def _counted(self, data: bytes) -> tuple[bytes, bool]:
        """What of some bytes goes back, and whether the connection ends with it."""
        with self._counting:  # or connections at the same time would count past a cut, and none would get a byte again
            end = min([*self.cuts[:1], *([] if self.limit is None else [self.limit])], default=None)
            part = data if end is None else data[: max(0, end - self.sent)]
            self.sent += len(part)
            last = self.sent == end
            self.cuts = [cut for cut in self.cuts if cut > self.sent]
        return part, last

    def close(self) -> None:
        self._listener.close()


class _PlainHandler(http.server.SimpleHTTPRequestHandler):
    """The standard library's own, for whole files only."""

    protocol_version = "HTTP/1.1"
    server: "WebServer"

    def log_message(self, format: str, *args: Any) -> None:
        self.server.requests.append(self.path)


class _RangedHandler(_PlainHandler):
    """Files with ETag and ranged reads."""

    def do_GET(self) -> None:
        self.answer(Path(self.translate_path(self.path)))

    def answer(self, path: Path) -> None:
        """Send the file, or the requested range of it."""
        self.server.headers_seen.append(dict(self.headers))
        if self.server.authorization not in (None, self.headers.get("Authorization")):
            self.send_error(401)
        elif path.is_file():
            self._send(path, re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")))
        else:
            self.send_error(self.server.absent)

    def _send(self, path: Path, wanted: re.Match[str] | None) -> None:
        size = path.stat().st_size
        start, stop = (int(wanted[1]), min(int(wanted[2]) + 1, size)) if wanted else (0, size)
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        if self.server.etags:
            self.send_header("ETag", f'"{hashlib.md5(path.read_bytes()).hexdigest()}"')
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        with path.open("rb") as file:
            file.seek(start)
            self.wfile.write(file.read(stop - start))


class _HubHandler(_RangedHandler):
    """The routes of the hub's API that huggingface_hub requests: repositories, files through a redirect, commits."""

    server: "HubServer"

    def do_POST(self) -> None:
        path, sent = unquote(self.path), self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.token not in (None, self.headers.get("Authorization", "").removeprefix("Bearer ")):
            self._refuse(403, "", "Forbidden")
        elif path == "/api/repos/create":
            wanted = json.loads(sent)
            self.server.repo = f"{wanted['organization']}/{wanted['name']}"
            self.server.visibility = wanted.get("visibility")
            self._json({"url": f"http://127.0.0.1:{self.server.port}/{self.server.repo}"})
        elif path.startswith("/api/validate-yaml"):
            self._json({})
        elif path == f"/api/models/{self.server.repo}/preupload/main":
            names = [one["path"] for one in json.loads(sent)["files"]]
            modes = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
            self._json({"files": modes})
        elif path == f"/api/models/{self.server.repo}/commit/main":
            self._commit([json.loads(line) for line in sent.splitlines()])
        else:
            self._refuse(404, "RepoNotFound", "Repository not found")

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        commit = hashlib.sha1(json.dumps(lines).encode()).hexdigest()
        for line in lines:
            if line["key"] == "file":
                file = self.server.folder / commit / line["value"]["path"]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(base64.b64decode(line["value"]["content"]))
        self.server.commits["main"] = commit
        url = f"http://127.0.0.1:{self.server.port}/{self.server.repo}/commit/{commit}"
        self._json({"commitUrl": url, "commitOid": commit})

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0])
        if path.startswith("/cdn/"):  # another host: the token must not be sent
            assert self.headers.get("Authorization") is None
            self.answer(self.server.folder / path.removeprefix("/cdn/"))
        elif self.server.token not in (None, self.headers.get("Authorization", "").removeprefix("Bearer ")):
            self._refuse(401, "RepoNotFound", "Repository not found")
        elif match := re.fullmatch(r"/api/models/(\w+/\w+)(?:/revision/(.+?))?", path):
            self._info(match[1], match[2] or "main")
        elif match := re.fullmatch(r"/api/models/\w+/\w+/tree/(\w+)/?", path):
            self._json([self._entry(file) for file in sorted((self.server.folder / match[1]).iterdir())])
        elif match := re.fullmatch(r"/\w+/\w+/resolve/(\w+/.+)", path):
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{self.server.cdn_port}/cdn/{match[1]}?Signature=secret")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self._refuse(404, "EntryNotFound", "Entry not found")

    def _info(self, repo: str, revision: str) -> None:
        if repo != self.server.repo:
            self._refuse(404, "RepoNotFound", "Repository not found")
        elif revision not in {*self.server.commits, *self.server.commits.values()}:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        else:
            self._json({"id": repo, "sha": self.server.commits.get(revision, revision), "siblings": []})

    def _entry(self, file: Path) -> dict[str, Any]:
        content = file.read_bytes()
        about = {"type": "file", "path": file.name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
        large = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
        return about | ({"lfs": large} if file.suffix in (".safetensors", ".gguf") else {})

    def _json(self, value: Any) -> None:
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _refuse(self, status: int, code: str, message: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", "0")
        self.end_headers()


class WebServer(http.server.ThreadingHTTPServer):
    """A web server of a folder; `requests` are the requested paths."""

    daemon_threads = True

    def __init__(self, folder: Path, handler: type[_PlainHandler] = _RangedHandler) -> None:
        self.folder = folder
        self.requests: list[str] = []
        self.headers_seen: list[dict[str, str]] = []
        self.authorization: str | None = None
        self.etags = True
        self.absent = 404  # the status of absent files
        super().__init__(("127.0.0.1", 0), lambda *args: handler(*args, directory=os.fspath(folder)))
        self.port: int = self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @classmethod
    def without_ranges(cls, folder: Path) -> "WebServer":
        """A server of whole files only."""
        return cls(folder, _PlainHandler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that hang up."""

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class HubServer(WebServer):
    """One model's repository; `folder` has a folder for each commit, `commits` the commits of branches and tags."""

    def __init__(self, folder: Path, repo: str, commits: dict[str, str]) -> None:
        self.repo, self.commits = repo, commits
        self.token: str | None = None
        self.visibility: str | None = None  # of what was created
        super().__init__(folder, _HubHandler)
        self.cdn_port = self.port  # a test may set that of a proxy before it
