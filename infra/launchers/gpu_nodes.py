"""Whether nodes with GPUs come to a cluster when a job asks for them."""

import re
from pathlib import Path
from typing import Any

from infra.launchers import KUBERAY, read
from infra.launchers.kuberay_file import at

GPU = "nvidia.com/gpu"
EC2_TYPES = re.compile(r"[gp]\d")  # EC2's families with GPUs: g4dn, g5, g6, g6e, p4d, p5, ...


def has_gpu_nodes(cluster: str) -> bool:
    """As far as a cluster's file says so. Machines that are there already need not be asked for."""
    if cluster.startswith(("http://", "https://")):
        return False
    parts = read(Path(cluster))
    for ray in (part for part in parts if part.get("kind") == KUBERAY):
        return any(_asks_for_gpus(at(group, "template.spec")) for group in at(ray, "spec.workerGroupSpecs") or [])
    kinds = (parts[0].get("available_node_types") or {}).values()
    return any(EC2_TYPES.match(str(at(kind, "node_config.InstanceType"))) for kind in kinds)


def _asks_for_gpus(pod: Any) -> bool:
    return any(int((at(one, "resources.limits") or {}).get(GPU, 0)) for one in at(pod, "containers") or [])
