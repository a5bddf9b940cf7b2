"""The device: which one a process computes on, and how much of its memory is free."""

import sys
from pathlib import Path

import psutil
import torch
from torch import nn

from llm4seg.config.schema import Cluster

CGROUP = Path("/sys/fs/cgroup")  # where a container finds its limits
MEMORY_FRACTION = 0.8  # of a device's free memory may go to a model's tensors where it is only used, not trained


def default_device(section: Cluster) -> torch.device:
    """Where a process computes that Ray has given nothing."""
    return torch.device("cuda" if section.device != "cpu" and torch.cuda.is_available() else "cpu")


def device_that_fits(model: nn.Module, wanted: torch.device) -> torch.device:
    """The device, or the CPU where the model's tensors leave it no room, as a large LLM's may; says so on stderr."""
    needed = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    if wanted.type == "cpu" or needed <= MEMORY_FRACTION * free_bytes(wanted):
        return wanted
    free = f"{free_bytes(wanted) / 1e9:.2f} GB are free on {wanted}"
    print(f"on the CPU: the model takes {needed / 1e9:.2f} GB, and {free}", file=sys.stderr, flush=True)
    return torch.device("cpu")


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a device; of the host, what this container can have without swapping."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min([int(psutil.virtual_memory().available), *_free_in_container()])


def _free_in_container() -> list[int]:
    """What a container's own limit leaves, if it has one; the cache of files that were read counts as free."""
    try:
        limit = int((CGROUP / "memory.max").read_text())  # "max" where there is none
        used = int((CGROUP / "memory.current").read_text())
        counts = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return []
    return [max(0, limit - used + int(counts.get("inactive_file", 0)))]
