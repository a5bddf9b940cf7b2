"""Training losses and what goes with them: how many output channels, and how logits become labels.

Everything is computed in float32, so that sums over an image stay exact under mixed precision.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from llm4seg.errors import InputError

Name = Literal["dice_ce", "paper"]
Loss = Callable[[Tensor, Tensor], Tensor]
SMOOTH = 1e-5


def out_channels(name: Name, classes: int) -> int:
    """Output channels for a number of foreground classes: background and classes, or one for the paper's sigmoid."""
    if name == "dice_ce":
        return classes + 1
    if classes != 1:
        raise InputError(
            f"training.loss: found paper, allowed: dice_ce, since the data has {classes} classes and not one"
        )
    return 1


def build_loss(name: Name) -> Loss:
    """The loss that `training.loss` names: of logits (N, K, *size) and labels (N, *size) int64, a scalar."""
    return {"dice_ce": dice_ce, "paper": bce_dice}[name]


def dice_ce(logits_NKS: Tensor, labels_NS: Tensor) -> Tensor:
    """Cross-entropy plus soft Dice loss, the mean over foreground classes.

    Dice is taken over the whole batch at once, since a class is absent from many a slice: there a Dice of its own
    would be 0 for any prediction but a perfect one, and would tell the network nothing.
    """
    logits_NKS = logits_NKS.float()
    truth_NKS = torch.zeros_like(logits_NKS).scatter_(1, labels_NS.unsqueeze(1), 1.0)
    over = [0, *range(2, logits_NKS.ndim)]
    dice_K = soft_dice(logits_NKS.softmax(dim=1), truth_NKS, over)
    return functional.cross_entropy(logits_NKS, labels_NS) + (1 - dice_K[1:].mean())


def bce_dice(logits_N1S: Tensor, labels_NS: Tensor) -> Tensor:
    """The paper's loss for one class: 0.5 x binary cross-entropy + (1 - soft Dice), Dice per image."""
    logits_NS, truth_NS = logits_N1S.squeeze(1).float(), labels_NS.float()
    dice_N = soft_dice(logits_NS.sigmoid(), truth_NS, list(range(1, truth_NS.ndim)))
    return 0.5 * functional.binary_cross_entropy_with_logits(logits_NS, truth_NS) + (1 - dice_N.mean())


def soft_dice(probability: Tensor, truth: Tensor, over: list[int]) -> Tensor:
    """(2 |P T| + s) / (|P| + |T| + s) with sums over the dimensions `over`; 1 for an empty truth predicted as empty."""
    overlap, total = (probability * truth).sum(over), probability.sum(over) + truth.sum(over)
    return (2 * overlap + SMOOTH) / (total + SMOOTH)


def labels_from_logits(logits_NKS: Tensor) -> Tensor:
    """Labels (N, *size) uint8: with one channel, 1 where the sigmoid exceeds 0.5; else the most probable class."""
    if logits_NKS.shape[1] == 1:
        return (logits_NKS.squeeze(1) > 0).to(torch.uint8)
    return logits_NKS.argmax(dim=1).to(torch.uint8)
