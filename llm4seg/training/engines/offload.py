"""The placement of frozen LLM matrices under ZeRO 3: on the device, in the host's memory or on an NVMe disk.

Only they move. DeepSpeed distinguishes tensors by size alone, so the threshold is the largest of all other tensors: the
CNN, the adapters, and trained parts of the LLM. A frozen matrix below the threshold stays, too.
"""

import os
import shutil
import socket
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
import torch
from torch import nn

from llm4seg.models import Hybrid
from llm4seg.models.hybrid import LLM
from llm4seg.runtime.collectives import all_reduce_max
from llm4seg.runtime.device import free_bytes
from llm4seg.utils.errors import InputError

Place = Literal["none", "cpu", "nvme"]
PLACES: tuple[Place, ...] = ("none", "cpu", "nvme")
SHARE = 0.5  # of the free memory that the LLM may take; the other half is for activations, gradients and others
NVME_BLOCK = 2**20  # bytes: DeepSpeed moves nothing smaller than a block to NVMe


@dataclass(frozen=True)
class Sizes:
    """Sizes in entries: of the largest tensor that stays, of each frozen LLM matrix, of all trained parameters."""

    threshold: int
    matrices: tuple[int, ...]
    bytes: int  # of these matrices
    together: int  # of these matrices, the most that are used at a time
    trained: int

    @property
    def moving(self) -> tuple[int, ...]:
        """The matrices above the threshold."""
        return tuple(entries for entries in self.matrices if entries > self.threshold)


def movable(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter of a hybrid is a frozen LLM matrix."""
    return name.startswith(LLM) and parameter.ndim > 1 and not parameter.requires_grad


def sizes(model: Hybrid) -> Sizes:
    """The sizes of a model, before DeepSpeed partitions it."""
    named = list(model.named_parameters())
    matrices = [parameter for name, parameter in named if movable(name, parameter)]
    return Sizes(
        threshold=max(parameter.numel() for name, parameter in named if not movable(name, parameter)),
        matrices=tuple(parameter.numel() for parameter in matrices),
        bytes=sum(parameter.numel() * parameter.element_size() for parameter in matrices),
        together=together(name for name, parameter in named if movable(name, parameter)),
        trained=sum(parameter.numel() for _, parameter in named if parameter.requires_grad),
    )


def together(matrices: Iterable[str]) -> int:
    """The most of these matrices in use at a time: one layer's, where its activations are recomputed."""
    return max(Counter(name.removeprefix(LLM).split(".")[1] for name in matrices).values(), default=0)


def dtype_of_matrices(model: Hybrid) -> torch.dtype:
    """The dtype of the frozen LLM matrices, one for all."""
    return next((one.dtype for name, one in model.named_parameters() if movable(name, one)), torch.float32)


def place_for(wanted: str, found: Sizes, device: torch.device, nvme: Path | None, world_size: int) -> Place:
    """The placement of the matrices, the same on every worker."""
    if wanted == "auto":
        return PLACES[all_reduce_max(PLACES.index(nearest(found.bytes, world_size, device, nvme)), device)]
    return next(one for one in PLACES if one == wanted)


def remarks(wanted: str, place: Place, found: Sizes, device: torch.device, world_size: int) -> Iterator[str]:
    """Lines for the log: the choice of `auto`, and matrices that stay on the device."""
    if wanted == "auto":
        free = free_memory(device)
        yield f"engine.offload: auto is {place}: {_gb(found.bytes)} of LLM matrices over {world_size} workers, {free}"
    if place != "none" and len(found.moving) < len(found.matrices):
        yield (
            f"engine.offload: {len(found.matrices) - len(found.moving)} of {len(found.matrices)} frozen LLM matrices "
            f"stay on the device: they are no larger than the CNN's largest tensor, {found.threshold} entries"
        )


def nearest(llm_bytes: int, world_size: int, device: torch.device, nvme: Path | None) -> Place:
    """The nearest place with room: on a device for a worker's partition of the matrices, on a host for all of them."""
    if llm_bytes / world_size <= SHARE * free_bytes(device):
        return "none"
    if device.type != "cpu" and llm_bytes <= SHARE * free_bytes(torch.device("cpu")):
        return "cpu"
    if nvme is None:
        raise InputError(
            f"cluster.nvme: found null, but {_gb(llm_bytes)} of LLM matrices leave no room in memory "
            f"({free_memory(device)}) "
            "and engine.offload is auto; allowed: a folder on an NVMe disk"
        )
    return "nvme"


def free_memory(device: torch.device) -> str:
    """Free memory of a device and of the host, for messages."""
    host = torch.device("cpu")
    of_host = f"{_gb(free_bytes(host))} free in the host's memory"
    return of_host if device.type == "cpu" else f"{_gb(free_bytes(device))} free on {device}, {of_host}"


def _gb(amount: float) -> str:
    return f"{amount / 1e9:.2f} GB"


def offload_options(
    found: Sizes, place: Place, nvme: Path | None, world_size: int, device: torch.device
) -> dict[str, Any]:
    """DeepSpeed's options for the matrices that move; empty when none moves."""
    if place == "none":
        return {}
    options: dict[str, Any] = {"device": place, "pin_memory": device.type == "cuda"}
    if place == "cpu":
        return {"offload_param": options}
    assert nvme is not None
    largest = max(found.threshold, *found.matrices, 0)
    options |= {
        "nvme_path": str(swap_folder(nvme)),
        "buffer_size": -(-largest // world_size),
        "buffer_count": found.together,
    }
    return {"offload_param": options}


def swap_folder(nvme: Path) -> Path:
    """This process's own folder on an NVMe disk: in a shared one DeepSpeed would write two runs to the same files.

    Folders of dead processes of this machine are deleted.
    """
    prefix = f"llm4seg-{socket.gethostname()}-"
    for folder in nvme.glob(f"{prefix}*"):
        if not psutil.pid_exists(int(folder.name.removeprefix(prefix))):
            shutil.rmtree(folder, ignore_errors=True)  # another worker may be deleting it
    return nvme / f"{prefix}{os.getpid()}"


def nvme_block(found: Sizes, world_size: int) -> int:
    """DeepSpeed's block size in bytes: more than a worker's partition of any tensor that must stay."""
    share = 4 * (-(-found.threshold // world_size))
    return max(NVME_BLOCK, -(-(share + 1) // NVME_BLOCK) * NVME_BLOCK)
