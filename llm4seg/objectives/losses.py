"""Training losses, the number of output channels that each needs, and labels from logits.

Everything is computed in float32, so that sums over an image stay exact under mixed precision.
"""

from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from llm4seg.data.label_scheme import IGNORE, LabelScheme
from llm4seg.runtime.collectives import all_reduce_sum
from llm4seg.utils.errors import InputError

Name = Literal["dice_ce", "bce_dice"]
SMOOTH = 1e-5


def out_channels(name: Name, scheme: LabelScheme) -> int:
    """Output channels: background and classes for a softmax, or one for each sigmoid, of BCE or of regions."""
    classes = len(scheme.classes)
    if name == "dice_ce":
        return classes if scheme.regions else classes + 1
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
        """A vector of sums in float32, of logits (N, K, *size) and labels (N, *size) int64; of pixels with IGNORE,
        nothing.
        """

    def value(self, sums: Tensor) -> Tensor:
        """The loss, a scalar."""

    def __call__(self, logits_NKS: Tensor, labels_NS: Tensor) -> Tensor:
        """The loss over the images of all workers, the same on each of them."""


def build_loss(name: Name, scheme: LabelScheme | None = None) -> Loss:
    """The loss that `training.loss` names, for labels of a scheme; None: of classes, with nothing ignored."""
    ignore = scheme is not None and scheme.ignore
    if name == "bce_dice":
        return BCEDice(ignore)
    return DiceBCE(scheme) if scheme is not None and scheme.regions else DiceCE(ignore)


class DiceCE:
    """Cross-entropy plus soft Dice loss, the mean over foreground classes.

    Dice is taken over the whole batch at once, since a class is absent from many slices: the Dice of such a slice
    would be 0 for any but a perfect prediction, and without information for the network.
    """

    def __init__(self, ignore: bool) -> None:
        self._ignore = ignore

    def sums(self, logits_NKS: Tensor, labels_NS: Tensor) -> Tensor:
        """Cross-entropy and pixels, then for each foreground class the overlap and the total of both masks."""
        logits_NKS = logits_NKS.float()
        kept_NS = labels_NS != IGNORE if self._ignore else None
        known_NS = labels_NS if kept_NS is None else labels_NS * kept_NS
        truth_NKS = torch.zeros_like(logits_NKS).scatter_(1, known_NS.unsqueeze(1), 1.0)
        entropy = functional.cross_entropy(logits_NKS, labels_NS, ignore_index=IGNORE, reduction="sum")
        overlap_K, total_K = _dice_sums(logits_NKS.softmax(dim=1), truth_NKS, kept_NS)
        return torch.cat([entropy[None], _pixels(labels_NS, kept_NS, entropy), overlap_K[1:], total_K[1:]])

    def value(self, sums: Tensor) -> Tensor:
        entropy, pixels = sums[:2]
        return entropy / pixels + 1 - soft_dice(*sums[2:].chunk(2)).mean()

    def __call__(self, logits_NKS: Tensor, labels_NS: Tensor) -> Tensor:
        return self.value(all_reduce_sum(self.sums(logits_NKS, labels_NS)))


class DiceBCE(DiceCE):
    """Of regions, which may overlap: binary cross-entropy, the mean over pixels and regions, plus soft Dice loss as in
    DiceCE; nnU-Net's loss for regions.
    """

    def __init__(self, scheme: LabelScheme) -> None:
        super().__init__(scheme.ignore)
        self._scheme = scheme

    def sums(self, logits_NKS: Tensor, labels_NS: Tensor) -> Tensor:
        """Cross-entropy, and pixels times regions, then for each region the overlap and the total of both masks."""
        logits_NKS = logits_NKS.float()
        kept_NS = labels_NS != IGNORE if self._ignore else None
        truth_NKS = torch.stack(self._scheme.masks(labels_NS), dim=1).float()
        entropy_NKS = functional.binary_cross_entropy_with_logits(logits_NKS, truth_NKS, reduction="none")
        if kept_NS is not None:
            entropy_NKS = entropy_NKS * kept_NS.unsqueeze(1)
        entropy = entropy_NKS.sum()
        pixels = _pixels(labels_NS, kept_NS, entropy) * logits_NKS.shape[1]
        return torch.cat([entropy[None], pixels, *_dice_sums(logits_NKS.sigmoid(), truth_NKS, kept_NS)])


def _pixels(labels_NS: Tensor, kept_NS: Tensor | None, like: Tensor) -> Tensor:
    """The number of pixels that count, of the type of `like`, (1,); at least 1."""
    if kept_NS is None:
        return like.new_tensor([labels_NS.numel()])
    return kept_NS.sum().clamp(min=1)[None].to(like.dtype)


def _dice_sums(probability_NKS: Tensor, truth_NKS: Tensor, kept_NS: Tensor | None) -> tuple[Tensor, Tensor]:
    """The overlap of both masks for each channel, and their total, (K,) each."""
    if kept_NS is not None:
        probability_NKS, truth_NKS = (masks * kept_NS.unsqueeze(1) for masks in (probability_NKS, truth_NKS))
    all_but_K = [0, *range(2, truth_NKS.ndim)]
    return (probability_NKS * truth_NKS).sum(all_but_K), (probability_NKS + truth_NKS).sum(all_but_K)


class BCEDice:
    """The paper's loss for one class: 0.5 x binary cross-entropy + (1 - soft Dice), Dice per image."""

    def __init__(self, ignore: bool) -> None:
        self._ignore = ignore

    def sums(self, logits_NKS: Tensor, labels_NS: Tensor) -> Tensor:
        """The images' losses, and the number of images."""
        logits_NS, truth_NS = logits_NKS.squeeze(1).float(), labels_NS.float()
        all_but_N = list(range(1, truth_NS.ndim))
        probability_NS = logits_NS.sigmoid()
        if self._ignore:
            kept_NS = (labels_NS != IGNORE).float()
            truth_NS, probability_NS = truth_NS * kept_NS, probability_NS * kept_NS
        dice_N = soft_dice((probability_NS * truth_NS).sum(all_but_N), (probability_NS + truth_NS).sum(all_but_N))
        entropy_NS = functional.binary_cross_entropy_with_logits(logits_NS, truth_NS, reduction="none")
        entropy_N = entropy_NS.mean(all_but_N)
        if self._ignore:
            entropy_N = (entropy_NS * kept_NS).sum(all_but_N) / kept_NS.sum(all_but_N).clamp(min=1)
        loss_N = 0.5 * entropy_N + (1 - dice_N)
        return torch.stack([loss_N.sum(), loss_N.new_tensor(len(loss_N))])

    def value(self, sums: Tensor) -> Tensor:
        return sums[0] / sums[1]

    def __call__(self, logits_NKS: Tensor, labels_NS: Tensor) -> Tensor:
        return self.value(all_reduce_sum(self.sums(logits_NKS, labels_NS)))


def soft_dice(overlap: Tensor, total: Tensor) -> Tensor:
    """(2 |P T| + s) / (|P| + |T| + s) of overlaps |P T| and totals |P| + |T|; 1 for an empty truth predicted empty."""
    return (2 * overlap + SMOOTH) / (total + SMOOTH)


def labels_from_logits(logits_NKS: Tensor, scheme: LabelScheme | None = None) -> Tensor:
    """Labels (N, *size) uint8: with one channel, 1 where the sigmoid exceeds 0.5; else the most probable class.

    Of regions, each where its sigmoid exceeds 0.5, written one over the other in `regions_class_order`.
    """
    if scheme is not None and scheme.regions:
        labels_NS = torch.zeros_like(logits_NKS[:, 0], dtype=torch.uint8)
        for place, label in enumerate(scheme.regions_class_order):
            labels_NS.masked_fill_(logits_NKS[:, place] > 0, label)
        return labels_NS
    if logits_NKS.shape[1] == 1:
        return (logits_NKS.squeeze(1) > 0).to(torch.uint8)
    return logits_NKS.argmax(dim=1).to(torch.uint8)
