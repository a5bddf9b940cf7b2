"""Deep supervision: a loss at several resolutions of the decoder (Lee et al., AISTATS 2015), weighted as in nnU-Net."""

from collections.abc import Sequence

from torch import Tensor

from llm4seg.objectives.losses import Loss


def supervised_loss(loss: Loss, outputs: Tensor | Sequence[Tensor], labels_NS: Tensor) -> Tensor:
    """A loss over the images of all workers, of logits (N, K, *size) and labels (N, *size) int64.

    Of logits at several resolutions, the full one first, it is the mean of their losses with the weights 1, 1/2, 1/4,
    ..., each against the labels of its resolution.
    """
    if isinstance(outputs, Tensor):
        return loss(outputs, labels_NS)
    total = loss(outputs[0], labels_NS)
    for level, logits_NKS in enumerate(outputs[1:], start=1):
        total = total + 0.5**level * loss(logits_NKS, downsampled(labels_NS, logits_NKS.shape[2:]))
    return total / sum(0.5**level for level in range(len(outputs)))


def downsampled(labels_NS: Tensor, size: Sequence[int]) -> Tensor:
    """Labels at a coarser resolution, by nearest neighbor: of f pixels along an axis that become one, that at f // 2.

    For sides that `size` divides, it is torch's `interpolate` with mode `nearest-exact`, without a copy in float.
    """
    for axis, (side, coarse) in enumerate(zip(labels_NS.shape[1:], size, strict=True), start=1):
        factor = side // coarse
        assert side == factor * coarse, "each resolution of a decoder divides the finer ones"
        places = [slice(None)] * labels_NS.ndim
        places[axis] = slice(factor // 2, None, factor)
        labels_NS = labels_NS[tuple(places)]
    return labels_NS
