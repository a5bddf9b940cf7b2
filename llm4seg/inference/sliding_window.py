"""Sliding windows over an image larger than the network's patch, and labels at its original shape in bounded memory."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from llm4seg.data.label_scheme import LabelScheme
from llm4seg.inference.resample import resample
from llm4seg.objectives.losses import labels_from_logits
from llm4seg.runtime.device import MEMORY_FRACTION, free_bytes

Network = Callable[[Tensor], Tensor]
FLOAT32 = 4  # bytes


@torch.no_grad()
def sliding_window_logits(
    network: Network,
    image_CS: Tensor,
    patch: Sequence[int],
    overlap: float = 0.5,
    batch: int = 1,
    budget: int | None = None,
) -> Tensor:
    """Logits (K, *S) float32 of a normalized image (C, *S): MONAI's sliding_window_inference with Gaussian weights.

    `network` maps windows (N, C, *patch) to logits (N, K, *patch) on its own device: that of its weights, or, of a
    function, that of the image. Its mode is left as it is. The logits are on that device while they fit into `budget`
    bytes there (None: its free memory), else on the host. An axis shorter than the patch is padded with zeros on both
    sides, and cut to its length again.
    """
    from monai.inferers import sliding_window_inference  # here: the import takes seconds

    device = _device_of(network, image_CS)
    padded_NCS, inside = _padded(image_CS[None].float(), patch)
    # MONAI has to know where the logits go before it runs the network, which alone knows how many channels there are:
    # so the first window is run ahead, and its logits are kept until MONAI asks for them
    corner = (slice(None), slice(None), *(slice(side) for side in patch))
    first = [network(padded_NCS[corner].to(device, copy=True))]
    needed = (first[0].shape[1] + 1) * padded_NCS[0, 0].numel() * FLOAT32  # logits and the sum of the weights

    def run(windows_NCS: Tensor) -> Tensor:
        # float32 whatever the network computes in, since MONAI multiplies by the weights in the dtype of what it gets.
        # It does so in place, and a network may return its input: hence a copy of that, as it may be the image itself
        known = [first.pop().float()] if first else []
        if len(known) < len(windows_NCS):
            known.append(network(windows_NCS[len(known) :].clone()).float())
        return torch.cat(known) if len(known) > 1 else known[0]

    logits_NKS: Tensor = sliding_window_inference(
        padded_NCS,
        tuple(patch),
        batch,
        run,
        overlap,
        mode="gaussian",
        sw_device=device,
        device=device_for(needed, device, budget),
    )
    return logits_NKS[0][(slice(None), *inside)]


def window_count(shape: Sequence[int], patch: Sequence[int], overlap: float = 0.5) -> int:
    """The forward passes of sliding_window_logits at batch 1, of an image (C, *shape).

    Where a pass needs all workers, as under ZeRO 3, they must make equally many.
    """
    count = 1
    for length, side in zip(shape, patch, strict=True):
        step = max(1, int(side * (1 - overlap)))
        count *= 1 + math.ceil(max(0, length - side) / step)  # the last window is moved back to end at the border
    return count


@torch.no_grad()
def labels_at(logits_KS: Tensor, shape: Sequence[int], scheme: LabelScheme | None = None) -> Tensor:
    """Labels uint8 (*shape) of finite logits (K, *S): those of `labels_from_logits(resample(logits))`, bit for bit.

    Of a volume, channels are resampled one after another, and a running maximum is kept: at most 2.5 times the memory
    of one float32 volume of this shape at a time, whatever K. They are on the logits' device, or, where that is too
    small, on the host. Of an image, all channels are resampled at once, since torch's rounding there depends on their
    number.
    """
    if len(shape) < 3 or len(logits_KS) == 1:
        return labels_from_logits(resample(logits_KS[None], shape), scheme)[0]
    device = device_for(3 * math.prod(shape) * FLOAT32, logits_KS.device, None)
    labels_S = torch.zeros(tuple(shape), dtype=torch.uint8, device=device)

    def resampled(channel: int) -> Tensor:
        return resample(logits_KS[None, channel : channel + 1].to(device), shape)[0, 0]

    if scheme is not None and scheme.regions:
        for channel, label in enumerate(scheme.regions_class_order):
            labels_S.masked_fill_(resampled(channel) > 0, label)
        return labels_S
    largest_S = resampled(0)
    for label in range(1, len(logits_KS)):
        logits_S = resampled(label)
        labels_S.masked_fill_(logits_S > largest_S, label)  # of equal ones the first stays, as by argmax
        torch.maximum(largest_S, logits_S, out=largest_S)
        del logits_S  # before the next one is made
    return labels_S


def device_for(needed: int, device: torch.device, budget: int | None) -> torch.device:
    """The device if `needed` bytes fit into the budget (None: its free memory), else the host."""
    if device.type == "cpu":
        return device
    most = MEMORY_FRACTION * free_bytes(device) if budget is None else budget
    return device if needed <= most else torch.device("cpu")


def _device_of(network: Network, image_CS: Tensor) -> torch.device:
    parameter = next(network.parameters(), None) if isinstance(network, nn.Module) else None
    return image_CS.device if parameter is None else parameter.device


def _padded(image_NCS: Tensor, patch: Sequence[int]) -> tuple[Tensor, list[slice]]:
    """The image with no axis shorter than the patch, and where the image is in it.

    With zeros, as nnU-Net and MONAI do after normalization: of z-scores that is the mean, of scaled windows black. The
    minimum of an image would be that of one dark voxel.
    """
    sides = image_NCS.shape[2:]
    missing = [max(0, side - length) for length, side in zip(sides, patch, strict=True)]
    inside = [slice(more // 2, more // 2 + length) for length, more in zip(sides, missing, strict=True)]
    if not any(missing):
        return image_NCS, inside
    both = [part for more in reversed(missing) for part in (more // 2, more - more // 2)]
    return functional.pad(image_NCS, both), inside
