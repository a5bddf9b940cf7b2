"""Copies of many tensors to the CPU in few: a GPU's queue is waited for at each of them."""

from collections.abc import Iterator

import torch
from torch import Tensor

PIECE = 2**28  # bytes that are gathered on the device at a time


def to_cpu(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, contiguous and no longer shared with the model: parts of one tensor for each dtype.

    They are gathered on their device, in pieces of PIECE bytes at most but for larger tensors, and copied once a piece.
    """
    copies: dict[str, Tensor] = {}
    for names in _pieces(state):
        tensors = [state[name].detach() for name in names]
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors]).cpu()
        for name, tensor, part in zip(names, tensors, flat.split([one.numel() for one in tensors]), strict=True):
            copies[name] = part.view(tensor.shape)
    return {name: copies[name] for name in state}


def _pieces(state: dict[str, Tensor]) -> Iterator[list[str]]:
    """The names of tensors to copy together: of one device and dtype."""
    kinds: dict[tuple[torch.device, torch.dtype], list[str]] = {}
    for name, tensor in state.items():
        kinds.setdefault((tensor.device, tensor.dtype), []).append(name)
    for names in kinds.values():
        piece, size = list[str](), 0
        for name in names:
            if piece and size + state[name].nbytes > PIECE:
                yield piece
                piece, size = [], 0
            piece.append(name)
            size += state[name].nbytes
        yield piece
