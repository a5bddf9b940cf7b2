"""Test-time augmentation: a network's logits, averaged over all mirrorings of its images along some axes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, combinations

import torch
from torch import Tensor, nn

from llm4seg.data.label_scheme import LabelScheme
from llm4seg.utils.errors import InputError


class Mirrored(nn.Module):
    """A network between mirrored images and logits that are mirrored back: the mean of all 2^n, as nnU-Net's.

    Logits are averaged, not probabilities: of a softmax, that is the geometric mean of these. `axes`: of the images,
    from 0. Where one mirrors along `left_right`, channels are taken in the order `exchanged`.
    """

    def __init__(
        self, network: nn.Module, axes: Sequence[int], left_right: int | None, exchanged: Sequence[int] | None
    ) -> None:
        super().__init__()
        self.network, self.axes, self.left_right, self.exchanged = network, tuple(axes), left_right, exchanged

    def forward(self, images_NCS: Tensor) -> Tensor:
        """Logits (N, K, *size) float32 of images (N, C, *size)."""
        total_NKS: Tensor = self.network(images_NCS).float()
        sizes = range(1, len(self.axes) + 1)
        for axes in chain.from_iterable(combinations(self.axes, size) for size in sizes):
            dims = [axis + 2 for axis in axes]
            logits_NKS = self.network(images_NCS.flip(dims)).float().flip(dims)
            if self.exchanged is not None and self.left_right in axes:
                logits_NKS = logits_NKS[:, self._order(logits_NKS.shape[1])]
            total_NKS = total_NKS + logits_NKS
        return total_NKS / 2 ** len(self.axes)

    def _order(self, channels: int) -> Tensor:
        assert self.exchanged is not None
        order = list(self.exchanged)
        if channels > len(order):  # of a softmax, background's comes first
            order = [0, *(place + 1 for place in order)]
        return torch.tensor(order)


@dataclass(frozen=True)
class Mirroring:
    """Axes to mirror along, and for each class the place of its mirror image (None: no class has a side)."""

    axes: tuple[int, ...]
    exchanged: tuple[int, ...] | None

    def of(self, network: nn.Module, left_right: int | None) -> nn.Module:
        """The network, mirrored; `left_right`: the axis of its images along which left and right lie."""
        return Mirrored(network, self.axes, left_right, self.exchanged)


def mirroring(
    axes: Sequence[int], pairs: Sequence[tuple[int, int]], scheme: LabelScheme | None, where: str = "evaluation.tta"
) -> Mirroring | None:
    """The mirroring of images whose labels of left and right are `pairs`; None without axes.

    Raises InputError for a region that has no mirror image among the regions.
    """
    if not axes:
        return None
    if not pairs or scheme is None:
        return Mirroring(tuple(axes), None)
    opposite = dict(pairs) | {right: left for left, right in pairs}
    covered = [set(scheme.covered(place)) for place in range(len(scheme.classes))]
    places = []
    for name, labels in zip(scheme.classes, covered, strict=True):
        image = {opposite.get(label, label) for label in labels}
        if image not in covered:
            raise InputError(
                f"{where}: found {[*axes]}, allowed: [], since no class is the mirror image of {name} (data.paired)"
            )
        places.append(covered.index(image))
    return Mirroring(tuple(axes), tuple(places))
