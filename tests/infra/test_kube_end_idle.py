"""When a RayCluster ends itself, asked of real servers: Ray's jobs over HTTP, Kubernetes over HTTPS."""

import json
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from infra import end_idle

CLUSTER = "/apis/ray.io/v1/namespaces/lab/rayclusters/llm4seg"


class There(HTTPServer):
    """A server, what it knows, and what it was asked with which token."""

    began = datetime.now(UTC) - timedelta(hours=2)

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.known: dict[str, Any] = {}
        self.asked: list[tuple[str, str, str | None]] = []
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,))

    def __enter__(self) -> "There":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, There)
        server.asked.append((self.command, self.path, self.headers["Authorization"]))
        self.send_response(200 if self.path in server.known else 404)
        self.end_headers()
        self.wfile.write(json.dumps(server.known.get(self.path)).encode())

    def do_DELETE(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


def certificate(folder: Path) -> Path:
    """Write a certificate for 127.0.0.1 and its key, as a Kubernetes cluster's own authority signs them."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kubernetes")])
    now = datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(1))
    made = made.add_extension(address, False).add_extension(x509.BasicConstraints(True, None), True)
    plain = serialization.NoEncryption()
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "ca.crt").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(pem))
    (folder / "key").write_bytes(key.private_bytes(pem, pkcs8, plain))
    return folder / "ca.crt"


@pytest.fixture
def kubernetes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[There]:
    """An API server with a cluster of two hours, and a pod's identity."""
    (tmp_path / "namespace").write_text("lab")
    (tmp_path / "token").write_text("identity")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(tmp_path), tmp_path / "key")
    with There() as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.known = {CLUSTER: {"metadata": {"creationTimestamp": began(2)}}}
        monkeypatch.setattr(end_idle, "ACCOUNT", tmp_path)
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "localhost")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT_HTTPS", str(server.server_port))
        monkeypatch.setenv("RAY_AUTH_TOKEN", "rays")
        yield server


@pytest.fixture
def ray() -> Iterator[There]:
    with There() as server:
        server.known = {"/api/jobs/": []}
        yield server


def began(hours: float) -> str:
    return (datetime.now(UTC) - timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")


def job(status: str, minutes_ago: float | None) -> dict[str, Any]:
    return {"status": status, "end_time": None if minutes_ago is None else (time.time() - minutes_ago * 60) * 1000}


def ask(ray: There) -> None:
    end_idle.main(
        ["llm4seg", "--idle-minutes", "30", "--hours", "24", f"--dashboard=http://127.0.0.1:{ray.server_port}"]
    )


def deleted(kubernetes: There) -> bool:
    return ("DELETE", CLUSTER, "Bearer identity") in kubernetes.asked


@pytest.mark.parametrize(
    ("jobs", "ends"),
    [
        ([], True),
        ([("SUCCEEDED", 31)], True),
        ([("SUCCEEDED", 31), ("STOPPED", 20)], False),
        ([("FAILED", 300), ("RUNNING", None)], False),
        ([("PENDING", None)], False),
    ],
    ids=["never used", "idle", "used lately", "running", "about to run"],
)
def test_it_ends_without_a_job_for_so_long(kubernetes: There, ray: There, jobs: list[Any], ends: bool) -> None:
    ray.known["/api/jobs/"] = [job(*one) for one in jobs]
    ask(ray)
    assert deleted(kubernetes) is ends
    assert ray.asked == [("GET", "/api/jobs/", "Bearer rays")]


def test_a_young_cluster_waits_for_its_first_job(kubernetes: There, ray: There) -> None:
    kubernetes.known[CLUSTER]["metadata"]["creationTimestamp"] = began(0.4)
    ask(ray)
    assert not deleted(kubernetes)


def test_it_ends_after_a_day_in_any_case(kubernetes: There, ray: There) -> None:
    kubernetes.known[CLUSTER]["metadata"]["creationTimestamp"] = began(25)
    ray.known["/api/jobs/"] = [job("RUNNING", None)]
    ask(ray)
    assert deleted(kubernetes)


def test_a_head_that_does_not_answer_is_no_reason(
    kubernetes: There, ray: There, capsys: pytest.CaptureFixture[str]
) -> None:
    ray.known = {}
    ask(ray)
    assert not deleted(kubernetes)
    assert "does not answer: HTTP Error 404" in capsys.readouterr().err


def test_no_cluster_any_more(kubernetes: There, ray: There, capsys: pytest.CaptureFixture[str]) -> None:
    kubernetes.known = {}
    ask(ray)
    assert capsys.readouterr().out == "no cluster\n"
    assert not deleted(kubernetes)


def test_kubernetes_must_be_the_one_that_signed(kubernetes: There, ray: There, tmp_path: Path) -> None:
    certificate(tmp_path)  # another authority of the same name
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        ask(ray)
    assert kubernetes.asked == []
