"""Validation on volumes of their own shapes, by sliding windows."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from llm4seg.data.prepared import Prepared
from llm4seg.inference.sliding_window import sliding_window_logits, window_count
from llm4seg.training.run import Run

VALUES = 2**24  # logits of a slab, about


def slabs(logits_NKS: Tensor, labels_NS: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits and labels in slabs of some rows: a loss makes several copies of the logits, and a volume's are many."""
    rows = labels_NS.shape[1]
    parts = min(rows, -(-logits_NKS.numel() // VALUES))
    yield from zip(logits_NKS.tensor_split(parts, dim=2), labels_NS.tensor_split(parts, dim=1), strict=True)


def predicted_volumes(
    network: Callable[[Tensor], Tensor], data: Prepared, case_ids: Sequence[str], run: Run
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """This worker's share of the cases: for each 1, its logits (1, K, *shape) and its labels (1, *shape) int64.

    All workers yield equally often, and make equally many forward passes in between, since ZeRO 3 gathers weights in
    each pass: without a case left, a worker passes forward an empty patch, and yields 0, its logits and labels.
    """
    passes = [window_count(data.cases[case_id].on_grid.shape, data.size) for case_id in case_ids]
    for first in range(0, len(case_ids), run.world_size):
        together = range(first, min(first + run.world_size, len(case_ids)))
        left = max(passes[place] for place in together)
        own = first + run.rank
        empty = torch.zeros(1, data.channels, *data.size, device=run.device)
        if own in together:
            image_CS, labels_S = data.resampled(case_ids[own])
            logits_KS = sliding_window_logits(network, image_CS.to(run.device), data.size)
            left -= passes[own]
            for _ in range(left):
                network(empty)
            yield 1, logits_KS[None], labels_S[None].to(logits_KS.device).long()
        else:
            for _ in range(left - 1):
                network(empty)
            yield 0, network(empty), torch.zeros(1, *data.size, dtype=torch.int64, device=run.device)
