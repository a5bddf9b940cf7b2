"""`Resident`: all images and labels of some cases on a device, where they fit, so that a step reads and copies none."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llm4seg.data.prepared import Prepared
from llm4seg.runtime.device import free_bytes

MEMORY_FRACTION = 0.2  # of the device's free memory that a part of the split may take


@dataclass(frozen=True)
class Resident:
    """Images float32 (N, C, *size) and labels uint8 (N, *size) of N cases, in their order."""

    images: Tensor
    labels: Tensor

    def take(self, cases_N: Tensor) -> tuple[Tensor, Tensor]:
        """Images and labels int64 of the cases at some places, int64 (N,) on the device."""
        return self.images.index_select(0, cases_N), self.labels.index_select(0, cases_N).long()

    def slice(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Images and labels int64 of the cases from `first` to `last`, not included."""
        return self.images[first:last], self.labels[first:last].long()


def resident(
    data: Prepared,
    case_ids: Sequence[str],
    device: torch.device,
    transform: Callable[[Tensor, str], Tensor] = lambda labels_S, case_id: labels_S,
) -> Resident | None:
    """The cases on a GPU; None where they do not fit, on the CPU, whose mapped files are memory, and for volumes.

    `transform` maps a case's labels and id to the labels to train on, uint8.
    """
    if device.type != "cuda" or data.spacing is not None:
        return None
    needed = len(case_ids) * math.prod(data.size) * (data.channels * torch.float32.itemsize + torch.uint8.itemsize)
    if needed > MEMORY_FRACTION * free_bytes(device):
        return None
    return stacked(data, case_ids, device, transform)


def stacked(
    data: Prepared, case_ids: Sequence[str], device: torch.device, transform: Callable[[Tensor, str], Tensor]
) -> Resident:
    """The cases on any device, copied one by one, so that the host never holds them all."""
    images = torch.empty(len(case_ids), data.channels, *data.size, device=device)
    labels = torch.empty(len(case_ids), *data.size, dtype=torch.uint8, device=device)
    for place, case_id in enumerate(case_ids):
        image_CS, labels_S = data.resampled(case_id)
        images[place].copy_(image_CS)
        labels[place].copy_(transform(labels_S, case_id))
    return Resident(images, labels)
