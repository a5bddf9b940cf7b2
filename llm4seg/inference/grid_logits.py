"""`GridLogits` and `SliceLogits`: a network's logits of an image or volume, and how they lie in the original image."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from llm4seg.data.label_scheme import LabelScheme
from llm4seg.inference.resample import resample
from llm4seg.inference.sliding_window import FLOAT32, device_for, labels_at

Box = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class NetworkInput:
    """An image as a network reads it, (C, *size) float32, normalized, and where that lies in the original image.

    `shape`: the original's; `box`: the part of it that was resampled (None: all of it), around which there is
    background; `patch`: the size of windows in which the network reads the image (None: it reads all at once).
    `left_right`: the axis along which left and right lie (None: across the image).
    """

    image: Tensor
    shape: tuple[int, ...]
    box: Box | None = None
    patch: tuple[int, ...] | None = None
    left_right: int | None = 1


class Logits(Protocol):
    """Logits of `channels`, of which one at a time is resampled to the original's shape."""

    channels: int

    def channel(self, channel: int) -> Tensor:
        """The logits of one channel at the original's resolution, float32 (*shape), on the CPU."""


class GridLogits:
    """The logits (K, *size) float32 of an image; `scheme` as in `labels_from_logits`."""

    def __init__(self, logits_KS: Tensor, read: NetworkInput, scheme: LabelScheme | None) -> None:
        self._logits_KS, self._shape, self._scheme = logits_KS, read.shape, scheme
        self._box: Box = read.box or tuple((0, side) for side in read.shape)
        self._inner = tuple(high - low for low, high in self._box)
        self.channels = len(logits_KS)

    def channel(self, channel: int) -> Tensor:
        """See `Logits`."""
        device = device_for(2 * math.prod(self._inner) * FLOAT32, self._logits_KS.device, None)
        inner_S = resample(self._logits_KS[None, channel : channel + 1].to(device), self._inner)[0, 0].cpu()
        around = background_logit(channel, has_softmax(self.channels, self._scheme))
        return self._in_place(inner_S, around)

    def labels(self) -> Tensor:
        """Labels uint8 (*shape), on the CPU: of resampled logits, whose borders are smoother than resampled labels."""
        return self._in_place(labels_at(self._logits_KS, self._inner, self._scheme).cpu(), 0)

    def _in_place(self, inner_S: Tensor, around: float) -> Tensor:
        return inner_S if self._inner == self._shape else in_place(inner_S, self._box, self._shape, around)


class SliceLogits:
    """The logits of a volume (*shape) from those of its slices, by their positions along its last axis.

    Other slices are background.
    """

    def __init__(
        self, slices: Mapping[int, GridLogits], shape: tuple[int, ...], channels: int, scheme: LabelScheme | None
    ) -> None:
        self._slices, self._shape, self._scheme, self.channels = slices, shape, scheme, channels

    def channel(self, channel: int) -> Tensor:
        """See `Logits`."""
        around = background_logit(channel, has_softmax(self.channels, self._scheme))
        volume_S = torch.full(self._shape, around)
        for position, logits in self._slices.items():
            volume_S[..., position] = logits.channel(channel)
        return volume_S


def has_softmax(channels: int, scheme: LabelScheme | None) -> bool:
    """Whether a network's channels are classes, background first, by a softmax; else they are a sigmoid's, each."""
    return channels > 1 and not (scheme is not None and scheme.regions)


def background_logit(channel: int, softmax: bool) -> float:
    """The logit of a channel where there is surely background."""
    return 0.0 if softmax and channel == 0 else -math.inf


def in_place(values_S: Tensor, box: Sequence[tuple[int, int]], shape: Sequence[int], around: float = 0) -> Tensor:
    """Values of a box of a volume, where they belong in the whole volume; `around` it, one value."""
    whole_S = torch.full(tuple(shape), around, dtype=values_S.dtype)
    whole_S[tuple(slice(low, high) for low, high in box)] = values_S
    return whole_S
