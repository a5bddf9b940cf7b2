"""Probabilities out of logits, one channel at a time, their mean over several networks, and labels out of them."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from llm4seg.data.label_scheme import LabelScheme
from llm4seg.inference.grid_logits import Logits, has_softmax


@torch.no_grad()
def mean_probabilities(networks: Sequence[Logits], scheme: LabelScheme | None) -> Iterator[Tensor]:
    """The mean of the networks' probabilities of one image: of each channel in turn, float32 (*shape), on the CPU.

    By a softmax over the channels, the background's first; of regions, and of one channel, by a sigmoid. One volume a
    network is in memory, and two.
    """
    channels = networks[0].channels
    softmax = has_softmax(channels, scheme)
    divisors = [_log_sum(logits) for logits in networks] if softmax else []
    for channel in range(channels):
        total_S: Tensor | None = None
        for place, logits in enumerate(networks):
            values_S = logits.channel(channel)
            own_S = values_S.sub_(divisors[place]).exp_() if softmax else values_S.sigmoid_()
            total_S = own_S if total_S is None else total_S.add_(own_S)
        assert total_S is not None
        yield total_S.div_(len(networks))


def _log_sum(logits: Logits) -> Tensor:
    """The logarithm of the sum of exponentials over all channels: what a softmax divides by."""
    total_S = logits.channel(0)
    for channel in range(1, logits.channels):
        torch.logaddexp(total_S, logits.channel(channel), out=total_S)
    return total_S


@torch.no_grad()
def labels_of(probabilities: Iterable[Tensor], channels: int, scheme: LabelScheme | None) -> Tensor:
    """Labels uint8 (*shape) of each channel's probabilities in turn: the most probable class, of equal ones the first.

    Of regions, each where it exceeds 0.5, written one over the other in `regions_class_order`; of one channel, 1 there.
    """
    softmax, regions = has_softmax(channels, scheme), scheme is not None and scheme.regions
    order = scheme.regions_class_order if scheme is not None and regions else (1,)
    several = iter(probabilities)
    first_S = next(several)
    labels_S, largest_S = torch.zeros_like(first_S, dtype=torch.uint8), first_S
    if not softmax:
        labels_S.masked_fill_(first_S > 0.5, order[0])
    for channel, values_S in enumerate(several, start=1):
        labels_S.masked_fill_(values_S > (largest_S if softmax else 0.5), channel if softmax else order[channel])
        if softmax:
            largest_S = torch.maximum(largest_S, values_S)
    return labels_S
