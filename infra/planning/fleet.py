"""The machines that a cluster's file may start: which types, how many, on which market."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.launchers import KUBERAY_KINDS, read
from infra.planning.prices import MachineType, Prices
from llm4seg.errors import InputError

SELECTOR = "node.kubernetes.io/instance-type"
NO_DISK = 0.0  # a pod's disk is its node's


@dataclass(frozen=True)
class Workers:
    """Up to `count` workers of one type; `spot` None: the file does not say on which market."""

    name: str
    machine: MachineType | None
    count: int
    spot: bool | None
    disk_gb: float


@dataclass(frozen=True)
class Fleet:
    """A cluster's head and its kinds of workers; a machine of None is one's own and costs nothing."""

    head: MachineType | None
    head_disk_gb: float
    workers: tuple[Workers, ...]
    most: int  # workers of all kinds together


def fleet(cluster: str, prices: Prices, instance_type: str | None) -> Fleet:
    """What a cluster's file may start. Raises InputError for a machine type that the table does not have."""
    if cluster.startswith(("http://", "https://")):
        raise InputError(f"{cluster}: a cluster that runs already has no plan; name its file")
    path = Path(cluster)
    parts = read(path)
    kuberay = [part for part in parts if part.get("kind") in KUBERAY_KINDS]
    if kuberay:
        return _of_kuberay(path, kuberay[0], prices, instance_type)
    provider = (parts[0].get("provider") or {}).get("type")
    if provider == "local":
        return _of_ones_own(parts[0])
    if provider not in ("aws", "gcp"):
        raise InputError(f"{path}: provider.type: found {provider!r}, allowed: aws, gcp, local")
    return _of_ray(path, parts[0], prices, instance_type)


def _of_ray(path: Path, file: dict[str, Any], prices: Prices, instance_type: str | None) -> Fleet:
    kinds, head = dict(file["available_node_types"]), file["head_node_type"]
    at_head = kinds.pop(head)["node_config"]
    workers = []
    for name, kind in kinds.items():
        node = kind["node_config"]
        where = f"{path}: available_node_types.{name}.node_config"
        machine = (
            _machine(node, where, prices) if instance_type is None else prices.machine(instance_type, "--instance-type")
        )
        workers.append(Workers(name, machine, kind["max_workers"], _is_spot(node), _disk_gb(node)))
    at = f"{path}: available_node_types.{head}.node_config"
    return Fleet(_machine(at_head, at, prices), _disk_gb(at_head), tuple(workers), file["max_workers"])


def _machine(node: dict[str, Any], where: str, prices: Prices) -> MachineType:
    field = "InstanceType" if "InstanceType" in node else "machineType"
    return prices.machine(str(node.get(field)), f"{where}.{field}")


def _is_spot(node: dict[str, Any]) -> bool:
    aws = (node.get("InstanceMarketOptions") or {}).get("MarketType") == "spot"
    return aws or (node.get("scheduling") or {}).get("provisioningModel") == "SPOT"


def _disk_gb(node: dict[str, Any]) -> float:
    aws = [one["Ebs"]["VolumeSize"] for one in node.get("BlockDeviceMappings", []) if "Ebs" in one]
    gcp = [one["initializeParams"]["diskSizeGb"] for one in node.get("disks", []) if "initializeParams" in one]
    return float(sum(aws + gcp))


def _of_kuberay(path: Path, ray: dict[str, Any], prices: Prices, instance_type: str | None) -> Fleet:
    spec = ray["spec"].get("rayClusterSpec", ray["spec"])
    workers = []
    for group in spec["workerGroupSpecs"]:
        found = (group["template"]["spec"].get("nodeSelector") or {}).get(SELECTOR)
        where = f"{path}: workerGroupSpecs.{group['groupName']}.template.spec.nodeSelector.{SELECTOR}"
        if found is None and instance_type is None:
            raise InputError(f"{where}: found none, allowed: a node's machine type there, or --instance-type")
        machine = prices.machine(str(instance_type or found), "--instance-type" if instance_type else where)
        workers.append(Workers(group["groupName"], machine, group["maxReplicas"], None, NO_DISK))
    return Fleet(None, NO_DISK, tuple(workers), sum(one.count for one in workers))


def _of_ones_own(file: dict[str, Any]) -> Fleet:
    count = len(file["provider"].get("worker_ips") or [])
    return Fleet(None, NO_DISK, (Workers("workers", None, count, None, NO_DISK),), count)
