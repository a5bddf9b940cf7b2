"""Batch order and batches: the samples of each global batch, independent of the number of workers."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from llm4seg.data.loader import sent
from llm4seg.data.prepared import Prepared


def steps_per_epoch(samples: int, batch_size: int) -> int:
    """Optimizer steps an epoch: every sample is seen, the last batch is filled up from the epoch's beginning."""
    return -(-samples // batch_size)


def epoch_order(samples: int, batch_size: int, seed: int, epoch: int) -> np.ndarray:
    """Sample indices of an epoch, (steps, batch_size), shuffled by (seed, epoch)."""
    order = np.random.default_rng([seed, epoch]).permutation(samples)
    return np.resize(order, (steps_per_epoch(samples, batch_size), batch_size))


def my_share(batch: np.ndarray, rank: int, world_size: int, accumulation: int) -> list[np.ndarray]:
    """This worker's micro-batches of one global batch, as many as `accumulation`.

    Where workers do not divide a micro-batch, the first of them have one sample more.
    """
    return [np.array_split(whole, world_size)[rank] for whole in np.array_split(batch, accumulation)]


def load_batch(
    data: Prepared,
    case_ids: Sequence[str],
    device: torch.device,
    change: Callable[[Tensor, str], Tensor] = lambda labels_S, case_id: labels_S,
) -> tuple[Tensor, Tensor]:
    """Images (N, C, *size) float32 and labels (N, *size) int64 on `device`, read from the memory-mapped shards.

    `change` makes other labels of a case's own.
    """
    images, labels = zip(*(data.resampled(case_id) for case_id in case_ids), strict=True)
    labels = tuple(change(labels_S, case_id) for labels_S, case_id in zip(labels, case_ids, strict=True))
    return sent(torch.stack(images), device), sent(torch.stack(labels), device).long()
