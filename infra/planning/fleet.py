"""The machines that a cluster's file may start: which types, how many, on which market."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.launchers import KUBERAY_KINDS, check_provider, read
from infra.launchers.checks import check
from infra.launchers.kuberay_file import at, read_kuberay
from infra.planning.prices import MachineType, Prices
from llm4seg.utils.errors import InputError, UserError

SELECTOR = "node.kubernetes.io/instance-type"
GPU = "nvidia.com/gpu"
SPOT_SELECTORS = {  # how a pod asks for a spot node
    "eks.amazonaws.com/capacityType": "SPOT",
    "karpenter.sh/capacity-type": "spot",
    "cloud.google.com/gke-spot": "true",
}
AUTOSCALER_IDLE = 60  # seconds, KubeRay's own


@dataclass(frozen=True)
class Workers:
    """Up to `count` nodes of one type, and how many GPUs of them the cluster has."""

    name: str
    machine: MachineType | None  # None: one's own, which costs nothing
    count: int
    gpus: int
    spot: bool


@dataclass(frozen=True)
class Fleet:
    """A cluster's head and its kinds of workers; no head: the file does not say on which machine it is."""

    head: MachineType | None
    workers: tuple[Workers, ...]
    most: int  # nodes of all kinds together, besides the head
    idle_minutes: float  # before a worker without work ends

    def machines(self) -> dict[MachineType | None, tuple[Workers, ...]]:
        """The workers with GPUs, if any have, by their type: those of one type differ in their market alone."""
        found: dict[MachineType | None, tuple[Workers, ...]] = {}
        for one in [one for one in self.workers if one.gpus] or self.workers:
            found[one.machine] = (*found.get(one.machine, ()), one)
        return found


def read_fleet(cluster: str, prices: Prices, instance_type: str | None) -> Fleet:
    """What a cluster's file may start; `instance_type` takes the place of the workers'. Raises InputError."""
    if cluster.startswith(("http://", "https://")):
        raise InputError(f"{cluster}: a cluster that runs already has no plan; name its file")
    path = Path(cluster)
    parts = read(path)
    if any(part.get("kind") in KUBERAY_KINDS for part in parts):
        return _of_kuberay(path, parts, prices, instance_type)
    check_provider(path, parts[0])
    check(path, parts[0])
    if parts[0]["provider"]["type"] == "local":
        return _of_ones_own(parts[0], instance_type)
    return _of_ray(path, parts[0], prices, instance_type)


def has_gpu_nodes(cluster: str, prices: Prices) -> bool:
    """Whether nodes with GPUs come when somebody asks for them, as far as a cluster's file says so."""
    if cluster.startswith(("http://", "https://")):
        return False
    parts = read(Path(cluster))
    if any(part.get("kind") in KUBERAY_KINDS for part in parts):
        groups = read_kuberay(Path(cluster), parts).cluster["workerGroupSpecs"]
        return any(_gpus_of_pod(group["template"]["spec"]) for group in groups)
    try:
        return any(one.machine and one.gpus for one in read_fleet(cluster, prices, None).workers)
    except UserError:  # a type that the table does not have
        return False


def _of_ray(path: Path, file: dict[str, Any], prices: Prices, instance_type: str | None) -> Fleet:
    kinds, head = file["available_node_types"], file["head_node_type"]

    def machine(name: str, other: str | None = None) -> MachineType:
        where = "--instance-type" if other else f"{path}: available_node_types.{name}.node_config.InstanceType"
        return prices.machine(other or str(kinds[name]["node_config"]["InstanceType"]), where)

    most = file.get("max_workers", 2)  # Ray's own
    workers = tuple(
        _of_type(name, kind, machine(name, instance_type), most) for name, kind in kinds.items() if name != head
    )
    return Fleet(machine(head), workers, most, file.get("idle_timeout_minutes", 5))


def _of_type(name: str, kind: dict[str, Any], machine: MachineType, most: int) -> Workers:
    count = min(most, kind.get("max_workers", most))
    return Workers(name, machine, count, count * machine.gpus, _is_spot(kind["node_config"]))


def _is_spot(node: dict[str, Any]) -> bool:
    return at(node, "InstanceMarketOptions.MarketType") == "spot"


def _of_kuberay(path: Path, parts: list[dict[str, Any]], prices: Prices, instance_type: str | None) -> Fleet:
    file = read_kuberay(path, parts)
    spec = f"{path}: {file.ray['kind']} spec{'.rayClusterSpec' if file.is_job else ''}.workerGroupSpecs"
    workers = tuple(
        _of_group(group, f"{spec}.{number}.template.spec.nodeSelector.{SELECTOR}", prices, instance_type)
        for number, group in enumerate(file.cluster["workerGroupSpecs"])
    )
    idle = at(file.cluster, "autoscalerOptions.idleTimeoutSeconds") or AUTOSCALER_IDLE
    return Fleet(None, workers, sum(one.count for one in workers), idle / 60)


def _of_group(group: dict[str, Any], where: str, prices: Prices, instance_type: str | None) -> Workers:
    """The nodes that a group's pods fill."""
    pod, pods = group["template"]["spec"], group.get("maxReplicas") or group.get("replicas") or 1
    chosen = pod.get("nodeSelector") or {}
    if instance_type is None and SELECTOR not in chosen:
        raise InputError(f"{where}: found none, allowed: a node's machine type there, or --instance-type")
    machine = prices.machine(instance_type or chosen[SELECTOR], "--instance-type" if instance_type else where)
    gpus = _gpus_of_pod(pod)
    if gpus > machine.gpus:
        raise InputError(
            f"{where}: found {machine.name} with {machine.gpus} GPUs, allowed: {gpus} or more, as pods ask"
        )
    on_a_node = machine.gpus // gpus if gpus else 1
    spot = any(chosen.get(label) == value for label, value in SPOT_SELECTORS.items())
    return Workers(group["groupName"], machine, math.ceil(pods / on_a_node), pods * gpus, spot)


def _gpus_of_pod(pod: dict[str, Any]) -> int:
    return sum(int((at(one, "resources.limits") or {}).get(GPU, 0)) for one in pod["containers"])


def _of_ones_own(file: dict[str, Any], instance_type: str | None) -> Fleet:
    if instance_type is not None:
        raise InputError(f"--instance-type: found {instance_type!r}, allowed: none with machines of one's own")
    count = len(file["provider"]["worker_ips"]) or 1  # a head alone works itself
    return Fleet(None, (Workers("workers", None, count, count, False),), count, 0.0)
