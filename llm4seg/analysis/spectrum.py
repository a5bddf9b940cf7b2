"""Singular values of tokens and of features: entropy, effective rank, and the share of the largest.

With p_i = s_i / sum s of the singular values s: entropy H = -sum p_i ln p_i in nats, effective rank exp(H) (Roy &
Vetterli, EUSIPCO 2007), LSVR = -ln p_1. Papers print both H and exp(H) as "effective rank", so both have a name here.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Spectrum:
    """The measures of the singular values of a matrix; NaN for a matrix of zeros.

    `entropy`: in nats, 0 to ln min(T, D). `effective_rank`: 1 to min(T, D). `lsvr`: 0 where one direction has all.
    `tokens` and `width`: the matrix's shape T and D. `share`: the effective rank over min(T, D), to compare grids.
    """

    entropy: float
    effective_rank: float
    lsvr: float
    tokens: int
    width: int
    share: float


def spectrum(tokens_TD: Tensor, centered: bool = False) -> Spectrum:
    """The spectrum of one image's tokens, in float64; `centered`: after the mean token is subtracted."""
    tokens_TD = tokens_TD.double()
    return _spectrum(tokens_TD - tokens_TD.mean(0) if centered else tokens_TD)


def dataset_spectrum(features_MD: Tensor) -> Spectrum:
    """The spectrum of the features of a data set's M images: SVE (`entropy`) and LSVR of Chen et al. (ICLR 2024).

    As in their code (Noisy-Model-Learning, src/models/svd.py): each sample is divided by its L2 norm, and then its own
    mean over features is subtracted. Here the singular values are exact, there of a randomized decomposition.
    """
    features_MD = torch.nn.functional.normalize(features_MD.double(), dim=1)
    return _spectrum(features_MD - features_MD.mean(1, keepdim=True))


def _spectrum(matrix_TD: Tensor) -> Spectrum:
    tokens, width = matrix_TD.shape
    singular = torch.linalg.svdvals(matrix_TD)
    total = float(singular.sum())
    if total == 0:
        return Spectrum(math.nan, math.nan, math.nan, tokens, width, math.nan)
    shares = singular / total
    entropy = max(0.0, -float(torch.xlogy(shares, shares).sum()))
    rank = math.exp(entropy)
    return Spectrum(entropy, rank, max(0.0, -math.log(float(shares[0]))), tokens, width, rank / min(tokens, width))
