"""Training losses, the number of output channels that each needs, and labels from logits.

Everything is computed in float32, so that sums over an image stay exact under mixed precision.
"""

from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from llm4seg.config.schema import Training
from llm4seg.data.label_scheme import IGNORE, LabelScheme
from llm4seg.objectives.loss_terms import (
    Dice,
    PixelTerm,
    Tversky,
    binary_cross_entropy,
    cross_entropy,
    each_channel,
    masked,
    sigmoid_focal,
    soft_dice,
    softmax_focal,
    without_ignored,
)
from llm4seg.runtime.collectives import all_reduce_sum
from llm4seg.utils.errors import InputError

Name = Literal["dice_ce", "bce_dice", "dice_focal", "tversky_ce"]


def out_channels(name: Name, scheme: LabelScheme) -> int:
    """Output channels: background and classes for a softmax, or one for each sigmoid, of BCE or of regions."""
    classes = len(scheme.classes)
    if name != "bce_dice":
        return classes if scheme.regions else classes + 1
    if classes != 1:
        raise InputError(
            f"training.loss: found bce_dice, allowed: dice_ce, dice_focal or tversky_ce, since the data has {classes} "
            "classes and not one"
        )
    return 1


class Loss(Protocol):
    """A loss over a set of images in two steps: sums over the images, then its value from the sums.

    Sums of batches and workers may be added, so that the value depends neither on batches nor on workers; where it is
    `additive`, so may those of an image's parts.
    """

    additive: bool

    def sums(self, logits_NKS: Tensor, labels_NS: Tensor) -> Tensor:
        """A vector of sums in float32, of logits (N, K, *size) and labels (N, *size) int64; of pixels with IGNORE,
        nothing.
        """

    def value(self, sums: Tensor) -> Tensor:
        """The loss, a scalar."""

    def __call__(self, logits_NKS: Tensor, labels_NS: Tensor) -> Tensor:
        """The loss over the images of all workers, the same on each of them."""


def build_loss(
    name: Name, scheme: LabelScheme | None = None, section: Training | None = None, weights: Tensor | None = None
) -> Loss:
    """The loss that `training.loss` names, for labels of a scheme; None: of classes, with nothing ignored.

    `section`: where `focal_gamma` and `tversky` are, for the losses that have them. `weights`: of background and
    classes (K,), for the cross-entropy or focal loss of a softmax.
    """
    ignore, regions = scheme is not None and scheme.ignore, scheme is not None and bool(scheme.regions)
    if name == "bce_dice":
        return BCEDice(scheme if regions else None, ignore)
    overlap: Dice | Tversky = Dice()
    pixels = binary_cross_entropy if regions else cross_entropy(weights)
    if name == "dice_focal":
        assert section is not None
        pixels = sigmoid_focal(section.focal_gamma) if regions else softmax_focal(section.focal_gamma, weights)
    if name == "tversky_ce":
        assert section is not None
        overlap = Tversky(section.tversky.alpha, section.tversky.beta)
    return RegionLoss(pixels, overlap, scheme) if scheme and regions else ClassLoss(pixels, overlap, ignore)


class ClassLoss:
    """Of classes, by a softmax: a mean over pixels (cross-entropy or focal loss) plus 1 - the mean score (Dice or
    Tversky) of foreground classes.

    The score is taken over the whole batch at once, since a class is absent from many slices: the Dice of such a slice
    would be 0 for any but a perfect prediction, and without information for the network.
    """

    additive = True

    def __init__(self, pixels: PixelTerm, overlap: Dice | Tversky, ignore: bool) -> None:
        self._pixels, self._overlap, self._ignore = pixels, overlap, ignore

    def sums(self, logits_NKS: Tensor, labels_NS: Tensor) -> Tensor:
        """The sum over pixels and its divisor, then for each foreground class the overlap's sums."""
        logits_NKS = logits_NKS.float()
        kept_NS = labels_NS != IGNORE if self._ignore else None
        known_NS = without_ignored(labels_NS, kept_NS)
        truth_NKS = torch.zeros_like(logits_NKS).scatter_(1, known_NS.unsqueeze(1), 1.0)
        log_NKS = logits_NKS.log_softmax(dim=1)
        total, count = self._pixels(log_NKS, labels_NS, truth_NKS, kept_NS)
        overlap = self._overlap_sums(log_NKS.exp(), truth_NKS, kept_NS)
        return torch.cat([total[None], count, *(sums_K[1:] for sums_K in overlap)])

    def _overlap_sums(self, probability_NKS: Tensor, truth_NKS: Tensor, kept_NS: Tensor | None) -> list[Tensor]:
        kept_N1S = each_channel(kept_NS)
        return self._overlap.sums(masked(probability_NKS, kept_N1S), masked(truth_NKS, kept_N1S))

    def value(self, sums: Tensor) -> Tensor:
        total, count = sums[:2]
        if self._ignore:  # maybe all pixels
            count = torch.where(count > 0, count, 1.0)
        return total / count + 1 - self._overlap.score(sums[2:]).mean()

    def __call__(self, logits_NKS: Tensor, labels_NS: Tensor) -> Tensor:
        return self.value(all_reduce_sum(self.sums(logits_NKS, labels_NS)))


class RegionLoss(ClassLoss):
    """Of regions, which may overlap, by a sigmoid each: a mean over pixels and regions, plus 1 - the mean score of
    regions, as in ClassLoss; with cross-entropy and Dice nnU-Net's loss for regions.
    """

    def __init__(self, pixels: PixelTerm, overlap: Dice | Tversky, scheme: LabelScheme) -> None:
        super().__init__(pixels, overlap, scheme.ignore)
        self._scheme = scheme

    def sums(self, logits_NKS: Tensor, labels_NS: Tensor) -> Tensor:
        """The sum over pixels and regions and its divisor, then for each region the overlap's sums."""
        logits_NKS = logits_NKS.float()
        kept_NS = labels_NS != IGNORE if self._ignore else None
        truth_NKS = torch.stack(self._scheme.masks(labels_NS), dim=1).float()
        total, count = self._pixels(logits_NKS, labels_NS, truth_NKS, kept_NS)
        return torch.cat([total[None], count, *self._overlap_sums(logits_NKS.sigmoid(), truth_NKS, kept_NS)])


class BCEDice:
    """The paper's loss for one class: 0.5 x binary cross-entropy + (1 - soft Dice), Dice per image.

    `regions`: the scheme of a single region, None where the class is label 1.
    """

    additive = False

    def __init__(self, regions: LabelScheme | None, ignore: bool) -> None:
        self._regions, self._ignore = regions, ignore

    def sums(self, logits_NKS: Tensor, labels_NS: Tensor) -> Tensor:
        """The images' losses, and the number of images; those with nothing but ignored pixels are none."""
        mask_NS = labels_NS if self._regions is None else self._regions.masks(labels_NS)[0]
        logits_NS, truth_NS = logits_NKS.squeeze(1).float(), mask_NS.float()
        all_but_N = list(range(1, truth_NS.ndim))
        probability_NS = logits_NS.sigmoid()
        if self._ignore:
            kept_NS = (labels_NS != IGNORE).float()
            truth_NS, probability_NS = truth_NS * kept_NS, probability_NS * kept_NS
        dice_N = soft_dice((probability_NS * truth_NS).sum(all_but_N), (probability_NS + truth_NS).sum(all_but_N))
        entropy_NS = functional.binary_cross_entropy_with_logits(logits_NS, truth_NS, reduction="none")
        if self._ignore:
            kept_N = kept_NS.sum(all_but_N)
            loss_N = 0.5 * (entropy_NS * kept_NS).sum(all_but_N) / kept_N.clamp(min=1) + (1 - dice_N)
            return torch.stack([loss_N.sum(), (kept_N > 0).sum().to(loss_N.dtype)])
        loss_N = 0.5 * entropy_NS.mean(all_but_N) + (1 - dice_N)
        return torch.stack([loss_N.sum(), loss_N.new_full((), len(loss_N))])

    def value(self, sums: Tensor) -> Tensor:
        return sums[0] / (sums[1].clamp(min=1) if self._ignore else sums[1])

    def __call__(self, logits_NKS: Tensor, labels_NS: Tensor) -> Tensor:
        return self.value(all_reduce_sum(self.sums(logits_NKS, labels_NS)))


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
    return logits_NKS.max(dim=1).indices.to(torch.uint8)  # as argmax, the first of equal ones, in a seventh of the time
