"""What workers get of a cluster's nodes, those that are there and those that come when asked for."""

from typing import Any

import pytest
import ray
import torch

from llm4seg.cluster.session import cpus_per_worker, fair_share, ray_session, runs_at_once, uses_gpu, where
from llm4seg.config import Config
from llm4seg.config.schema import Cluster
from llm4seg.utils.errors import InputError

HEAD, GPU_NODE = {"CPU": 4.0}, {"CPU": 4.0, "GPU": 1.0}


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, float]]:
    """Those of a cluster, to be filled."""
    there: list[dict[str, float]] = []

    def resources() -> dict[str, float]:
        return {name: sum(node.get(name, 0) for node in there) for name in ("CPU", "GPU")}

    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": node} for node in there])
    monkeypatch.setattr(ray, "cluster_resources", resources)
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    return there


def section(config: Config, **changes: Any) -> Cluster:
    changes = {"cpus_per_worker": None} | changes
    return config.override({f"cluster.{name}": value for name, value in changes.items()}).cluster


@pytest.mark.parametrize(
    ("there", "workers", "gpus", "share"),
    [
        ([{"CPU": 16}], 4, 0, 4),
        ([{"CPU": 3}], 4, 0, 1),
        ([HEAD, *4 * [GPU_NODE]], 4, 1, 4),  # 20 cores in all, but no node has 5
        ([{"CPU": 48, "GPU": 4}], 4, 1, 12),
        ([{"CPU": 8}, {"CPU": 4}], 3, 0, 4),
        ([HEAD], 4, 1, 1),
        ([], 1, 0, 1),
    ],
)
def test_a_share_is_one_that_nodes_have(there: list[dict[str, float]], workers: int, gpus: float, share: int) -> None:
    assert fair_share(there, workers, gpus) == share


def test_nodes_with_gpus_may_come_only_when_they_are_asked_for(config: Config, nodes: list[dict[str, float]]) -> None:
    nodes.append(HEAD)
    asked = section(config, address="auto", device="cuda", workers=4)
    assert uses_gpu(asked)
    assert cpus_per_worker(asked) == 1
    assert where(asked).endswith("4 are asked for, 0 are there and nodes with more are waited for")


def test_a_cluster_without_gpus_trains_on_cpus_and_says_so(config: Config, nodes: list[dict[str, float]]) -> None:
    nodes.extend([HEAD, HEAD])
    found = section(config, address="auto", device="auto", workers=2)
    assert not uses_gpu(found)
    assert cpus_per_worker(found) == 4
    assert where(found) == "cluster: workers train on CPUs; it has 0 GPUs, and cluster.device is auto"
    with pytest.raises(InputError, match=r"cluster\.workers: found 4 x 4 CPU cores, allowed: the cluster's 8 in all"):
        cpus_per_worker(section(config, address="auto", device="cpu", workers=4, cpus_per_worker=4))


def test_this_machines_gpu_counts_if_torch_can_use_it(
    config: Config, nodes: list[dict[str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes.append(GPU_NODE)
    here = section(config, address=None, device="auto")
    assert uses_gpu(here)
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: False)
    assert not uses_gpu(here)
    with pytest.raises(InputError, match=r"cluster\.device: found cuda, but this machine has 0 GPUs"):
        uses_gpu(section(config, address=None, device="cuda"))


@pytest.mark.parametrize(
    ("there", "changes", "runs"),
    [
        ([{"CPU": 16.0, "GPU": 1.0}], {"gpus_per_worker": 0.25, "cpus_per_worker": 1}, 4),
        ([{"CPU": 2.0, "GPU": 1.0}], {"gpus_per_worker": 0.25, "cpus_per_worker": 1}, 2),  # cores are short
        ([{"CPU": 16.0, "GPU": 1.0}], {"gpus_per_worker": 0.25}, 4),  # a run that took all cores would be alone
        ([{"CPU": 64.0, "GPU": 4.0}], {}, 4),
        ([{"CPU": 64.0, "GPU": 4.0}], {"workers": 2}, 2),
        ([{"CPU": 2.0, "GPU": 1.0}], {"gpus_per_worker": 0.25}, 2),
        ([GPU_NODE, GPU_NODE, GPU_NODE], {"workers": 2}, 1),
        ([HEAD, HEAD], {"device": "cpu", "cpus_per_worker": 2}, 4),
        ([HEAD], {"device": "cpu", "trials": 3}, 1),
        ([HEAD], {"address": "auto", "device": "cuda", "trials": 3}, 3),  # nodes for them are asked for
    ],
)
def test_as_many_runs_as_there_is_room_for(
    config: Config, nodes: list[dict[str, float]], there: list[dict[str, float]], changes: dict[str, Any], runs: int
) -> None:
    nodes.extend(there)
    assert runs_at_once(section(config, **changes)) == runs


@pytest.mark.parametrize("said", ["The node timed out during startup.", "\nThe last 20 lines of dashboard.log\nmore\n"])
def test_a_machine_too_busy_for_ray_is_one_line(said: str, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: Any) -> None:
        raise Exception(said)

    monkeypatch.setattr(ray, "init", init)
    line = r"^Ray did not start on this machine.* says: The .*[.g]$"
    with pytest.raises(InputError, match=line), ray_session(config.cluster):
        pass
