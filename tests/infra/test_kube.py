"""Clusters of KubeRay from start to end, over a stand-in for kubectl that refuses what an API server would."""

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.launchers import kuberay, launcher
from infra.launchers.kuberay import KubeRayCluster
from llm4seg.utils.errors import InputError
from tests import kubectl
from tests.import_graph import ROOT
from tests.kubectl import calls, objects

FILLED_IN = ((" REGISTRY/", " registry.example/lab/"), (":ACCOUNT:", ":123456789012:"), ("@PROJECT.", "@lab."))


@pytest.fixture
def kubernetes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Kubernetes cluster, and a laptop without a token."""
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "ray" / "auth_token"))
    return kubectl.on_path(tmp_path, monkeypatch)


@pytest.fixture
def cluster(tmp_path: Path) -> Callable[[str], KubeRayCluster]:
    """One of ours, filled in as a user would."""

    def made(name: str) -> KubeRayCluster:
        text = (ROOT / "infra" / "kuberay" / name).read_text(encoding="utf-8")
        for words, own in FILLED_IN:
            text = text.replace(words, own)
        (tmp_path / name).write_text(text, encoding="utf-8")
        found = launcher(str(tmp_path / name))
        assert isinstance(found, KubeRayCluster)
        return found

    return made


Made = Callable[[str], KubeRayCluster]


def test_up_applies_the_file_and_the_token_and_waits_for_the_head(
    kubernetes: Path, cluster: Made, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cluster("cluster.yaml").up(dry_run=False)
    there = objects(kubernetes)
    assert {"rayclusters/llm4seg", "cronjobs/llm4seg-end", "networkpolicys/llm4seg", "pods/llm4seg-head-x"} <= set(
        there
    )
    token = there["secrets/llm4seg-token"]["stringData"]["auth_token"]
    assert len(token) >= 32
    assert (tmp_path / "ray" / "auth_token").read_text() == token
    assert (tmp_path / "ray" / "auth_token").stat().st_mode & 0o777 == 0o600
    output = capfd.readouterr()
    assert token not in output.out + output.err
    assert not [call for call in calls(kubernetes) if token in " ".join(call["words"])]
    assert any("--for=condition=HeadPodReady" in call["words"] for call in calls(kubernetes))
    assert "python -m infra submit" in output.out


def test_up_again_changes_nothing_and_takes_the_same_token(kubernetes: Path, cluster: Made) -> None:
    cluster("cluster.yaml").up(dry_run=False)
    before = objects(kubernetes)
    cluster("cluster.yaml").up(dry_run=False)
    assert objects(kubernetes) == before


def test_down_leaves_nothing_but_what_serves_others_and_may_be_repeated(
    kubernetes: Path, cluster: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster("cluster.yaml").up(dry_run=False)
    for _ in range(2):
        cluster("cluster.yaml").down(dry_run=False)
        assert set(objects(kubernetes)) == {"namespaces/llm4seg"}
        assert "nothing of llm4seg is left" in capsys.readouterr().out


def test_down_says_what_is_left(kubernetes: Path, cluster: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kuberay, "TIMEOUT", 0.0)
    cluster("cluster.yaml").up(dry_run=False)
    (kubernetes / "stuck").touch()
    with pytest.raises(InputError, match="still there after 0 s: pod/llm4seg-head-x"):
        cluster("cluster.yaml").down(dry_run=False)


def test_the_dashboard_is_lent_as_long_as_the_block(kubernetes: Path, cluster: Made) -> None:
    started = cluster("cluster.yaml")
    with pytest.raises(InputError, match="no head runs; start it with"), started.dashboard():
        pass
    started.up(dry_run=False)
    with started.dashboard() as address:
        assert address.startswith("http://127.0.0.1:")
        assert urllib.request.urlopen(address, timeout=10).read() == b"the dashboard"
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(address, timeout=10)


def test_status_attach_and_logs_find_the_head(
    kubernetes: Path, cluster: Made, capfd: pytest.CaptureFixture[str]
) -> None:
    started = cluster("cluster.yaml")
    started.up(dry_run=False)
    capfd.readouterr()
    started.status(dry_run=False)
    assert "raycluster/llm4seg: ready" in (output := capfd.readouterr().out)
    assert "llm4seg-head-x" in output
    started.attach(dry_run=False)
    started.logs(dry_run=False)
    asked = [" ".join(call["words"]) for call in calls(kubernetes)]
    assert "-n llm4seg exec pod/llm4seg-head-x -c ray-head -- ray status" in asked
    assert "-n llm4seg exec -it pod/llm4seg-head-x -c ray-head -- bash" in asked
    assert asked[-1] == "-n llm4seg logs -f --tail=100 pod/llm4seg-head-x -c autoscaler"


def test_what_an_api_server_refuses_is_said(kubernetes: Path, cluster: Made, tmp_path: Path) -> None:
    cluster("cluster.yaml")
    file = tmp_path / "cluster.yaml"
    file.write_text(file.read_text().replace("minReplicas: 0", "minReplica: 0"))
    with pytest.raises(InputError, match="exit code 1"):
        launcher(str(file)).up(dry_run=False)


def test_words_in_capitals_must_be_filled_in_first(kubernetes: Path) -> None:
    ours = launcher("infra/kuberay/cluster.yaml")
    with pytest.raises(InputError, match=r"ServiceAccount metadata\.annotations\.\S+: found .* own ACCOUNT"):
        ours.up(dry_run=False)
    assert calls(kubernetes) == []


@pytest.mark.parametrize("command", ["up", "down", "status", "attach", "logs"])
def test_a_dry_run_calls_nothing(
    command: str, kubernetes: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    getattr(launcher(str(ROOT / "infra" / "kuberay" / "cluster.yaml")), command)(True)
    output = capfd.readouterr()
    assert "$ kubectl" in output.err
    assert calls(kubernetes) == []
    assert not (tmp_path / "ray").exists()


def test_without_kubectl(monkeypatch: pytest.MonkeyPatch, cluster: Made, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="kubectl is not installed"):
        cluster("cluster.yaml").down(dry_run=False)


def test_a_secret_goes_through_standard_input_alone(kubernetes: Path, cluster: Made) -> None:
    cluster("cluster.yaml").up(dry_run=False)
    token = objects(kubernetes)["secrets/llm4seg-token"]["stringData"]["auth_token"]
    given = [json.loads(call["given"]) for call in calls(kubernetes) if call["given"]]
    assert [part["kind"] for part in given[0]["items"]] == ["Namespace", "Secret"]
    assert token in json.dumps(given)
    first = next(call["words"] for call in calls(kubernetes) if "apply" in call["words"])
    assert "--server-side" in first  # else a copy would stand in an annotation
