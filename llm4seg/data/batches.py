"""Batch order and batches: the samples of each global batch, independent of the number of workers."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from llm4seg.data.loader import to_device
from llm4seg.data.prepared import Prepared


def steps_per_epoch(samples: int, batch_size: int) -> int:
    """Optimizer steps per epoch, over every sample; the last batch is filled up with the epoch's first samples."""
    return -(-samples // batch_size)


def epoch_order(samples: int, batch_size: int, seed: int, epoch: int) -> np.ndarray:
    """Sample indices of an epoch, (steps, batch_size), shuffled by (seed, epoch)."""
    order = np.random.default_rng([seed, epoch]).permutation(samples)
    return np.resize(order, (steps_per_epoch(samples, batch_size), batch_size))


def worker_share(batch: np.ndarray, rank: int, world_size: int, accumulation: int) -> list[np.ndarray]:
    """A worker's share of a global batch: `accumulation` micro-batches of sample indices.

    Where the number of workers does not divide a micro-batch, the first workers have one sample more.
    """
    return [np.array_split(part, world_size)[rank] for part in np.array_split(batch, accumulation)]


def load_batch(
    data: Prepared,
    case_ids: Sequence[str],
    device: torch.device,
    transform: Callable[[Tensor, str], Tensor] = lambda labels_S, case_id: labels_S,
) -> tuple[Tensor, Tensor]:
    """Images (N, C, *size) float32 and labels (N, *size) int64 on `device`, read from the memory-mapped shards.

    `transform` maps a case's labels and id to the labels to train on.
    """
    images, labels = zip(*(data.resampled(case_id) for case_id in case_ids), strict=True)
    labels = tuple(transform(labels_S, case_id) for labels_S, case_id in zip(labels, case_ids, strict=True))
    return to_device(torch.stack(images), device), to_device(torch.stack(labels), device).long()
