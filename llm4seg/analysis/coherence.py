"""How alike the gradients of single images are: their coherence, in time and memory linear in their number."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor


def coherence(gradients: Iterable[Tensor]) -> float:
    """The mean cosine between the gradients of two different images, of tensors of one shape.

    1: all point one way; about 0: unrelated. NaN for fewer than two. With unit gradients u of n images it is
    (|sum u|^2 - n) / (n (n - 1)), as m-coherence (Zielinski & Chatterjee 2020) is |sum u|^2 / n. A gradient of zeros
    is left out.
    """
    total, count = torch.zeros(()).double(), 0
    for gradient in gradients:
        flat = gradient.detach().double().reshape(-1).cpu()
        norm = flat.norm()
        if norm > 0:
            total, count = total + flat / norm, count + 1
    return (float(total.square().sum()) - count) / (count * (count - 1)) if count > 1 else math.nan
