"""Terms of the training losses, each as sums over pixels: cross-entropy and focal loss, Dice and Tversky.

The formulas are MONAI's. Masks have a channel a class (of a softmax, background first) or a region (of sigmoids).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

SMOOTH = 1e-5
# of a softmax's log-probabilities or of sigmoids' logits, labels, their masks, and the pixels that count (None: all):
# the sum over pixels, and its divisor (1,)
PixelTerm = Callable[[Tensor, Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]


def cross_entropy(weights_K: Tensor | None) -> PixelTerm:
    """Cross-entropy of a softmax; with weights of the labels, the weighted mean as torch's."""

    def sums(log_NKS: Tensor, labels_NS: Tensor, truth_NKS: Tensor, kept_NS: Tensor | None) -> tuple[Tensor, Tensor]:
        log_NS = masked(of_labels(log_NKS, truth_NKS), kept_NS)
        if weights_K is None:
            entropy = -log_NS.sum()
            return entropy, count_pixels(labels_NS, kept_NS, entropy)
        weights_NS = masked(weights_K.to(log_NKS)[without_ignored(labels_NS, kept_NS)], kept_NS)
        return -(log_NS * weights_NS).sum(), weights_NS.sum()[None]

    return sums


def binary_cross_entropy(
    logits_NKS: Tensor, labels_NS: Tensor, truth_NKS: Tensor, kept_NS: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of a sigmoid for each region, for the mean over pixels and regions."""
    entropy_NKS = functional.binary_cross_entropy_with_logits(logits_NKS, truth_NKS, reduction="none")
    entropy = masked(entropy_NKS, each_channel(kept_NS)).sum()
    return entropy, count_pixels(labels_NS, kept_NS, entropy) * logits_NKS.shape[1]


def softmax_focal(gamma: float, weights_K: Tensor | None) -> PixelTerm:
    """Focal loss (Lin et al., ICCV 2017) of a softmax, -w (1 - p)^gamma log p of each pixel's label; for the mean over
    pixels and channels, as MONAI's FocalLoss with use_softmax has it.
    """

    def sums(log_NKS: Tensor, labels_NS: Tensor, truth_NKS: Tensor, kept_NS: Tensor | None) -> tuple[Tensor, Tensor]:
        log_NS = of_labels(log_NKS, truth_NKS)
        # a difference of exactly 0 has no finite slope under an exponent below 1
        far_NS = (1 - log_NS.exp()).clamp(min=torch.finfo(log_NS.dtype).eps)
        loss_NS = masked(-(far_NS**gamma) * log_NS, kept_NS)
        if weights_K is not None:
            loss_NS = loss_NS * weights_K.to(loss_NS)[without_ignored(labels_NS, kept_NS)]
        loss = loss_NS.sum()
        return loss, count_pixels(labels_NS, kept_NS, loss) * log_NKS.shape[1]

    return sums


def sigmoid_focal(gamma: float) -> PixelTerm:
    """Focal loss of a sigmoid for each region, for the mean over pixels and regions."""

    def sums(logits_NKS: Tensor, labels_NS: Tensor, truth_NKS: Tensor, kept_NS: Tensor | None) -> tuple[Tensor, Tensor]:
        entropy_NKS = functional.binary_cross_entropy_with_logits(logits_NKS, truth_NKS, reduction="none")
        log_far_NKS = functional.logsigmoid(-logits_NKS * (2 * truth_NKS - 1))
        loss = masked((gamma * log_far_NKS).exp() * entropy_NKS, each_channel(kept_NS)).sum()
        return loss, count_pixels(labels_NS, kept_NS, loss) * logits_NKS.shape[1]

    return sums


class Dice:
    """Soft Dice, from the overlap and the total of both masks."""

    def sums(self, probability_NKS: Tensor, truth_NKS: Tensor) -> list[Tensor]:
        """Sums over images and pixels, (K,) each."""
        all_but_K = [0, *range(2, truth_NKS.ndim)]
        return [(probability_NKS * truth_NKS).sum(all_but_K), (probability_NKS + truth_NKS).sum(all_but_K)]

    def score(self, sums: Tensor) -> Tensor:
        """The score of each channel, 1 at best, of `sums` one after another."""
        return soft_dice(*sums.chunk(2))


class Tversky:
    """The Tversky index tp / (tp + alpha fp + beta fn) of soft counts (Salehi et al., MLMI 2017); soft Dice where both
    weights are 0.5. A `beta` above `alpha` makes missed pixels dearer than false ones.
    """

    def __init__(self, alpha: float, beta: float) -> None:
        self._alpha, self._beta = alpha, beta

    def sums(self, probability_NKS: Tensor, truth_NKS: Tensor) -> list[Tensor]:
        """True positives, false positives and false negatives over images and pixels, (K,) each."""
        all_but_K = [0, *range(2, truth_NKS.ndim)]
        products = (
            probability_NKS * truth_NKS,
            probability_NKS * (1 - truth_NKS),
            (1 - probability_NKS) * truth_NKS,
        )
        return [product.sum(all_but_K) for product in products]

    def score(self, sums: Tensor) -> Tensor:
        """The score of each channel, 1 at best, of `sums` one after another."""
        tp, fp, fn = sums.chunk(3)
        return (tp + SMOOTH) / (tp + self._alpha * fp + self._beta * fn + SMOOTH)


def soft_dice(overlap: Tensor, total: Tensor) -> Tensor:
    """(2 |P T| + s) / (|P| + |T| + s) of overlaps |P T| and totals |P| + |T|; 1 for an empty truth predicted empty."""
    return (2 * overlap + SMOOTH) / (total + SMOOTH)


def of_labels(values_NKS: Tensor, truth_NKS: Tensor) -> Tensor:
    """The value of each pixel's label, (N, *size); `truth_NKS`: 1 for the label, 0 elsewhere.

    A product, not `gather` or torch's cross-entropy: on CUDA the former's gradient sorts all indices, or adds in any
    order, and the latter's sum has no order.
    """
    return (values_NKS * truth_NKS).sum(1)


def count_pixels(labels_NS: Tensor, kept_NS: Tensor | None, like: Tensor) -> Tensor:
    """The number of pixels that count, of the type of `like`, (1,)."""
    if kept_NS is None:
        return like.new_full((1,), labels_NS.numel())  # filled on the device: nothing to wait for
    return kept_NS.sum()[None].to(like.dtype)


def without_ignored(labels_NS: Tensor, kept_NS: Tensor | None) -> Tensor:
    """Labels with background where they are ignored."""
    return labels_NS if kept_NS is None else labels_NS * kept_NS


def masked(values: Tensor, kept: Tensor | None) -> Tensor:
    """Values with 0 where a mask is false; None: with all values."""
    return values if kept is None else values * kept


def each_channel(kept_NS: Tensor | None) -> Tensor | None:
    """A mask to multiply tensors (N, K, *size) with."""
    return None if kept_NS is None else kept_NS.unsqueeze(1)
