"""Statistics of a layer's attention weights over a token grid."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def attention_statistics(weights_HTT: Tensor, grid: Sequence[int], mask_T: Tensor | None = None) -> dict[str, float]:
    """Means over heads and queries of one image's attention weights, whose rows (queries) sum to 1.

    `distance`: from the query's cell to where it attends, in cells, weighted (Raghu et al., NeurIPS 2021). `entropy`:
    in nats; uniform over T tokens: ln T. `first`: the share on the first token of the raster, often LLMs' attention
    sink. `own`: the share on the query's own token. `mask_excess`: the share that queries in the mask give to the mask,
    minus the mask's share of all tokens; NaN without a mask, or with an empty one. Under causal attention early queries
    attend to few tokens: compare it only with other causal attention.
    """
    weights_HTT = weights_HTT.double()
    axes = [torch.arange(side, dtype=torch.float64) for side in grid]
    cells_TA = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2).to(weights_HTT.device)
    entropy = -torch.xlogy(weights_HTT, weights_HTT).sum(-1)
    return {
        "distance": float((weights_HTT * torch.cdist(cells_TA, cells_TA)).sum(-1).mean()),
        "entropy": float(entropy.mean()),
        "first": float(weights_HTT[..., 0].mean()),
        "own": float(weights_HTT.diagonal(dim1=1, dim2=2).mean()),
        "mask_excess": math.nan if mask_T is None else _mask_excess(weights_HTT, mask_T.reshape(-1).bool()),
    }


def _mask_excess(weights_HTT: Tensor, mask_T: Tensor) -> float:
    if not mask_T.any():
        return math.nan
    within = weights_HTT[:, mask_T][..., mask_T].sum(-1).mean()
    return float(within - mask_T.double().mean())
