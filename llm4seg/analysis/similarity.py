"""How alike two sets of features of the same tokens are: linear CKA, and the relative change."""

import math

import torch
from torch import Tensor


def cka(x_TD: Tensor, y_TE: Tensor, unbiased: bool = True) -> float:
    """Linear centered kernel alignment of two sets of features of the same tokens, whose widths may differ.

    HSIC(x, y) / sqrt(HSIC(x, x) HSIC(y, y)) (Kornblith et al., ICML 2019), of the unbiased estimator of HSIC (Song et
    al., JMLR 2012), which is 0 on average for unrelated features, and may be below; or of the biased one, which grows
    with width / tokens. Equal up to rotation, offset and scale: 1. NaN for constant features, and unbiased for fewer
    than four tokens. A few outlying tokens can decide it (Davari et al., ICLR 2023). No matrix of T x T is formed.
    """
    x_TD, y_TE = (one.double() - one.double().mean(0) for one in (x_TD, y_TE))
    if unbiased and len(x_TD) < 4:
        return math.nan
    hsic = _hsic_unbiased if unbiased else _hsic_biased
    norms = hsic(x_TD, x_TD) * hsic(y_TE, y_TE)
    return hsic(x_TD, y_TE) / math.sqrt(norms) if norms > 0 else math.nan


def _hsic_biased(x_TD: Tensor, y_TE: Tensor) -> float:
    """||X'Y||_F^2 of centered features: biased HSIC up to a factor, which CKA cancels."""
    return float((x_TD.T @ y_TE).square().sum())


def _hsic_unbiased(x_TD: Tensor, y_TE: Tensor) -> float:
    """Unbiased HSIC up to a factor, of the kernels K = XX' and L = YY' with their diagonals set to zero.

    tr(KL) + 1'K1 1'L1 / ((T - 1)(T - 2)) - 2 1'KL1 / (T - 2), each from the features, without K and L.
    """
    tokens = len(x_TD)
    diagonal_x, diagonal_y = x_TD.square().sum(1), y_TE.square().sum(1)
    trace = (x_TD.T @ y_TE).square().sum() - diagonal_x @ diagonal_y
    rows_x, rows_y = x_TD @ x_TD.sum(0) - diagonal_x, y_TE @ y_TE.sum(0) - diagonal_y  # K1 and L1
    sums = rows_x.sum() * rows_y.sum() / ((tokens - 1) * (tokens - 2))
    return float(trace + sums - 2 * (rows_x @ rows_y) / (tokens - 2))


def relative_change(before_TD: Tensor, after_TD: Tensor) -> float:
    """||after - before|| / ||before|| (Frobenius) of equal shapes; NaN for a `before` of zeros."""
    before, change = torch.linalg.norm(before_TD.double()), torch.linalg.norm(after_TD.double() - before_TD.double())
    return float(change / before) if before > 0 else math.nan
