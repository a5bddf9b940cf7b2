"""The device of a process, and its free memory."""

import logging
from pathlib import Path

import psutil
import torch
from torch import nn

from llm4seg.config.schema import Cluster

log = logging.getLogger(__name__)

CGROUP = Path("/sys/fs/cgroup")  # the container's limits
MEMORY_FRACTION = 0.8  # of a device's free memory that a model's tensors may take in inference


def default_device(section: Cluster) -> torch.device:
    """The device of a process to which Ray has assigned none."""
    return torch.device("cuda" if section.device != "cpu" and torch.cuda.is_available() else "cpu")


def device_that_fits(model: nn.Module, wanted: torch.device) -> torch.device:
    """`wanted`, or the CPU where the model, with a large LLM layer, does not fit; then warns."""
    needed = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    if wanted.type == "cpu" or needed <= MEMORY_FRACTION * free_bytes(wanted):
        log.debug("the model, %.1f MB, is on %s", needed / 1e6, wanted)
        return wanted
    free = f"{free_bytes(wanted) / 1e9:.2f} GB are free on {wanted}"
    log.warning(f"on the CPU: the model takes {needed / 1e9:.2f} GB, and {free}")
    return torch.device("cpu")


def free_bytes(device: torch.device) -> int:
    """Free memory of a device in bytes; of the host, what this container can use without swapping."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min([int(psutil.virtual_memory().available), *_free_in_container()])


def _free_in_container() -> list[int]:
    """Free bytes below the container's own limit, if it has one; the page cache counts as free."""
    try:
        limit = int((CGROUP / "memory.max").read_text())  # "max" where there is none
        used = int((CGROUP / "memory.current").read_text())
        counts = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return []
    return [max(0, limit - used + int(counts.get("inactive_file", 0)))]
