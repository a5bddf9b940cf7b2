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
from tests.kube import queued_job
from tests.kubectl import calls, objects, put

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


def test_a_job_runs_beside_a_cluster_and_ends_alone(kubernetes: Path, cluster: Made) -> None:
    """Nothing of the cluster is taken over, found in the job's place, or deleted with it."""
    cluster("cluster.yaml").up(dry_run=False)
    before = objects(kubernetes)
    job = cluster("job.yaml")
    job.up(dry_run=False)
    assert all(objects(kubernetes)[name] == there for name, there in before.items())
    job.attach(dry_run=False)
    assert "pod/llm4seg-job-head-x" in calls(kubernetes)[-1]["words"]
    job.down(dry_run=False)
    assert objects(kubernetes) == before


@pytest.mark.parametrize(("first", "second"), [("cluster.yaml", "job.yaml"), ("job.yaml", "cluster.yaml")])
@pytest.mark.parametrize("command", ["up", "down"])
def test_a_cluster_of_the_other_kind_with_this_name_is_refused(
    first: str, second: str, command: str, kubernetes: Path, cluster: Made, tmp_path: Path
) -> None:
    """Its label, and with that its pods, would be found in the place of ours."""
    cluster("job.yaml")
    job = tmp_path / "job.yaml"
    job.write_text(job.read_text().replace("llm4seg-job", "llm4seg"))
    cluster("cluster.yaml")
    launcher(str(tmp_path / first)).up(dry_run=False)
    before, theirs = objects(kubernetes), "raycluster" if first == "cluster.yaml" else "rayjob"
    with pytest.raises(InputError, match=rf"metadata\.name: found llm4seg, which is {theirs}/llm4seg's, too"):
        getattr(launcher(str(tmp_path / second)), command)(False)
    assert objects(kubernetes) == before


def test_up_again_leaves_a_job_that_runs_alone(
    kubernetes: Path, cluster: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    """KubeRay's state of it is Running until it ends: it never waits for a job again."""
    job = cluster("job.yaml")
    job.up(dry_run=False)
    assert "next: python -m infra submit" in capsys.readouterr().out
    job.on_submitted("raysubmit_1")
    before = objects(kubernetes)
    job.up(dry_run=False)
    assert objects(kubernetes) == before
    assert "rayjob/llm4seg-job has its job already" in (output := capsys.readouterr().out)
    assert "infra submit" not in output


def test_a_job_that_ends_before_its_cluster_is_ready_is_not_waited_for(
    kubernetes: Path, cluster: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = iter(["", "Initializing", "Failed"])
    monkeypatch.setattr(KubeRayCluster, "_state", lambda _: next(states))
    monkeypatch.setattr(kuberay.time, "sleep", lambda _: None)
    with pytest.raises(InputError, match="rayjob/llm4seg-job is failed, not waiting or running"):
        cluster("job.yaml").up(dry_run=False)


def test_a_job_is_told_which_of_rays_jobs_it_is_for(kubernetes: Path, cluster: Made) -> None:
    job = cluster("job.yaml")
    job.up(dry_run=False)
    job.on_submitted("raysubmit_1")
    assert objects(kubernetes)["rayjobs/llm4seg-job"]["spec"]["jobId"] == "raysubmit_1"
    plain = cluster("cluster.yaml")
    before = len(calls(kubernetes))
    plain.on_submitted("raysubmit_1")  # a RayCluster is for many jobs
    assert len(calls(kubernetes)) == before


def test_up_starts_an_ended_job_anew(kubernetes: Path, cluster: Made) -> None:
    """Applied again, an ended RayJob would stay ended."""
    cluster("job.yaml").up(dry_run=False)
    ended = objects(kubernetes)["rayjobs/llm4seg-job"]
    put(kubernetes, ended | {"status": {"jobDeploymentStatus": "Complete"}})
    cluster("job.yaml").up(dry_run=False)
    assert objects(kubernetes)["rayjobs/llm4seg-job"]["status"] == {"jobDeploymentStatus": "Waiting"}
    assert any(call["words"][2:4] == ["delete", "rayjob/llm4seg-job"] for call in calls(kubernetes))


def test_kueue_decides_when_it_starts(
    kubernetes: Path, cluster: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edited = queued_job()
    for words, own in FILLED_IN:
        edited = edited.replace(words, own)
    (tmp_path / "job.yaml").write_text(edited, encoding="utf-8")
    queued = launcher(str(tmp_path / "job.yaml"))
    queued.up(dry_run=False)
    assert "queued in llm4seg" in capsys.readouterr().out
    assert not any("wait" in call["words"] for call in calls(kubernetes))
    queued.status(dry_run=False)
    assert "rayjob/llm4seg-job: queued" in capsys.readouterr().out
    queued.down(dry_run=False)
    assert set(objects(kubernetes)) == {"namespaces/llm4seg"}


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
@pytest.mark.parametrize("file", ["cluster.yaml", "job.yaml"])
def test_a_dry_run_calls_nothing(
    command: str, file: str, kubernetes: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    getattr(launcher(str(ROOT / "infra" / "kuberay" / file)), command)(True)
    output = capfd.readouterr()
    assert "$ kubectl" in output.err
    assert calls(kubernetes) == []
    assert not (tmp_path / "ray").exists()


def test_without_kubectl(monkeypatch: pytest.MonkeyPatch, cluster: Made, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="kubectl is not installed"):
        cluster("cluster.yaml").down(dry_run=False)


def test_a_secret_goes_through_standard_input_alone(kubernetes: Path, cluster: Made) -> None:
    cluster("job.yaml").up(dry_run=False)
    token = objects(kubernetes)["secrets/llm4seg-job-token"]["stringData"]["auth_token"]
    given = [json.loads(call["given"]) for call in calls(kubernetes) if call["given"]]
    assert [part["kind"] for part in given[0]["items"]] == ["Namespace", "Secret"]
    assert token in json.dumps(given)
    first = next(call["words"] for call in calls(kubernetes) if "apply" in call["words"])
    assert "--server-side" in first  # else a copy would stand in an annotation
