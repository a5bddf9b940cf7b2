"""Training losses, the number of output channels that each needs, and labels from logits.

Everything is computed in float32, so that sums over an image stay exact under mixed precision.
"""

from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from llm4seg.runtime.collectives import all_reduce_sum
from llm4seg.utils.errors import InputError

Name = Literal["dice_ce", "bce_dice"]
SMOOTH = 1e-5


def out_channels(name: Name, classes: int) -> int:
    """Output channels for a number of foreground classes: background and classes, or one for BCE's sigmoid."""
    if name == "dice_ce":
        return classes + 1
    if classes != 1:
        raise InputError(
            f"training.loss: found bce_dice, allowed: dice_ce, since the data has {classes} classes and not one"
        )
    return 1


class Loss(Protocol):
    """A loss over a set of images in two steps: sums over the images, then its value from the sums.

    Sums of batches and workers may be added, so that the value depends neither on batches nor on workers.
    """

    def sums(self, logits_NKS: Tensor, labels_NS: Tensor) -> Tensor:
        """A vector of sums in float32, of logits (N, K, *size) and labels (N, *size) int64."""

    def value(self, sums: Tensor) -> Tensor:
        """The loss, a scalar."""

    def __call__(self, logits_NKS: Tensor, labels_NS: Tensor) -> Tensor:
        """The loss over the images of all workers, the same on each of them."""


def build_loss(name: Name) -> Loss:
    """The loss that `training.loss` names."""
    return DiceCE() if name == "dice_ce" else BCEDice()


class DiceCE:
    """Cross-entropy plus soft Dice loss, the mean over foreground classes.

    Dice is taken over the whole batch at once, since a class is absent from many slices: the Dice of such a slice
    would be 0 for any but a perfect prediction, and without information for the network.
    """

    def sums(self, logits_NKS: Tensor, labels_NS: Tensor) -> Tensor:
        """Cross-entropy and pixels, then for each foreground class the overlap and the total of both masks."""
        logits_NKS = logits_NKS.float()
        truth_NKS = torch.zeros_like(logits_NKS).scatter_(1, labels_NS.unsqueeze(1), 1.0)
        probability_NKS = logits_NKS.softmax(dim=1)
        all_but_K = [0, *range(2, logits_NKS.ndim)]
        overlap_K = (probability_NKS * truth_NKS).sum(all_but_K)
        total_K = (probability_NKS + truth_NKS).sum(all_but_K)
        entropy = functional.cross_entropy(logits_NKS, labels_NS, reduction="sum")
        return torch.cat([entropy[None], entropy.new_tensor([labels_NS.numel()]), overlap_K[1:], total_K[1:]])

    def value(self, sums: Tensor) -> Tensor:
        entropy, pixels = sums[:2]
        return entropy / pixels + 1 - soft_dice(*sums[2:].chunk(2)).mean()

    def __call__(self, logits_NKS: Tensor, labels_NS: Tensor) -> Tensor:
        return self.value(all_reduce_sum(self.sums(logits_NKS, labels_NS)))


class BCEDice:
    """The paper's loss for one class: 0.5 x binary cross-entropy + (1 - soft Dice), Dice per image."""

    def sums(self, logits_NKS: Tensor, labels_NS: Tensor) -> Tensor:
        """The images' losses, and the number of images."""
        logits_NS, truth_NS = logits_NKS.squeeze(1).float(), labels_NS.float()
        probability_NS = logits_NS.sigmoid()
        all_but_N = list(range(1, truth_NS.ndim))
        dice_N = soft_dice((probability_NS * truth_NS).sum(all_but_N), (probability_NS + truth_NS).sum(all_but_N))
        entropy_NS = functional.binary_cross_entropy_with_logits(logits_NS, truth_NS, reduction="none")
        loss_N = 0.5 * entropy_NS.mean(all_but_N) + (1 - dice_N)
        return torch.stack([loss_N.sum(), loss_N.new_tensor(len(loss_N))])

    def value(self, sums: Tensor) -> Tensor:
        return sums[0] / sums[1]

    def __call__(self, logits_NKS: Tensor, labels_NS: Tensor) -> Tensor:
        return self.value(all_reduce_sum(self.sums(logits_NKS, labels_NS)))


def soft_dice(overlap: Tensor, total: Tensor) -> Tensor:
    """(2 |P T| + s) / (|P| + |T| + s) of overlaps |P T| and totals |P| + |T|; 1 for an empty truth predicted empty."""
    return (2 * overlap + SMOOTH) / (total + SMOOTH)


def labels_from_logits(logits_NKS: Tensor) -> Tensor:
    """Labels (N, *size) uint8: with one channel, 1 where the sigmoid exceeds 0.5; else the most probable class."""
    if logits_NKS.shape[1] == 1:
        return (logits_NKS.squeeze(1) > 0).to(torch.uint8)
    return logits_NKS.argmax(dim=1).to(torch.uint8)
