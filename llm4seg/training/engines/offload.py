"""Where the frozen LLM matrices live under ZeRO 3: on the device, in the host's memory or on an NVMe disk.

Only they move. DeepSpeed tells tensors apart by their size alone, so the limit is drawn at the largest tensor of the
rest: the CNN, the adapters, and whatever of the LLM is trained. A frozen matrix below the limit stays, too.
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
SHARE = 0.5  # of the free memory may go to the LLM; activations, gradients and the rest want the other half
NVME_BLOCK = 2**20  # bytes: DeepSpeed moves nothing smaller than a block to NVMe


@dataclass(frozen=True)
class Sizes:
    """What decides where tensors live: entries of the largest that stays, of each frozen LLM matrix, of all trained."""

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
    """Read off a whole model, before DeepSpeed shares its tensors out."""
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
    """How many of these matrices are used at a time, at most: one layer's, where its activations are computed again."""
    return max(Counter(name.removeprefix(LLM).split(".")[1] for name in matrices).values(), default=0)


def dtype_of_matrices(model: Hybrid) -> torch.dtype:
    """In which the frozen LLM matrices are held; all alike."""
    return next((one.dtype for name, one in model.named_parameters() if movable(name, one)), torch.float32)


def place_for(wanted: str, found: Sizes, device: torch.device, nvme: Path | None, world_size: int) -> Place:
    """Where the matrices go, the same on every worker."""
    if wanted == "auto":
        return PLACES[all_reduce_max(PLACES.index(nearest(found.bytes, world_size, device, nvme)), device)]
    return next(one for one in PLACES if one == wanted)


def remarks(wanted: str, place: Place, found: Sizes, device: torch.device, world_size: int) -> Iterator[str]:
    """What a user should know of that place: how `auto` came to it, and what stays on the device all the same."""
    if wanted == "auto":
        free = free_memory(device)
        yield f"engine.offload: auto is {place}: {_gb(found.bytes)} of LLM matrices over {world_size} workers, {free}"
    if place != "none" and len(found.moving) < len(found.matrices):
        yield (
            f"engine.offload: {len(found.matrices) - len(found.moving)} of {len(found.matrices)} frozen LLM matrices "
            f"stay on the device: they are no larger than the CNN's largest tensor, {found.threshold} entries"
        )


def nearest(llm_bytes: int, world_size: int, device: torch.device, nvme: Path | None) -> Place:
    """The nearest place that has room: workers share the matrices out, those of one node hold at most all of them."""
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
    """That in words: of a device, and of the host."""
    host = torch.device("cpu")
    of_host = f"{_gb(free_bytes(host))} free in the host's memory"
    return of_host if device.type == "cpu" else f"{_gb(free_bytes(device))} free on {device}, {of_host}"


def _gb(amount: float) -> str:
    return f"{amount / 1e9:.2f} GB"


def offload_options(
    found: Sizes, place: Place, nvme: Path | None, world_size: int, device: torch.device
) -> dict[str, Any]:
    """What DeepSpeed is told of the matrices that move; nothing when nothing moves."""
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
    """This process's own folder on an NVMe disk: DeepSpeed would let two runs write to the same files.

    What processes of this machine that are dead by now have left there is deleted.
    """
    prefix = f"llm4seg-{socket.gethostname()}-"
    for folder in nvme.glob(f"{prefix}*"):
        if not psutil.pid_exists(int(folder.name.removeprefix(prefix))):
            shutil.rmtree(folder, ignore_errors=True)  # another worker may be at it
    return nvme / f"{prefix}{os.getpid()}"


def nvme_block(found: Sizes, world_size: int) -> int:
    """Bytes that DeepSpeed reads at a time: more than a worker's share of any tensor that is to stay."""
    share = 4 * (-(-found.threshold // world_size))
    return max(NVME_BLOCK, -(-(share + 1) // NVME_BLOCK) * NVME_BLOCK)
