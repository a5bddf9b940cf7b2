"""The trained parameters in one tensor: one op for all of them where the optimizer, a clip or an all-reduce works."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

ALIGNED = 64  # entries: 256 bytes, as CUDA's allocator; libraries have slower kernels for other addresses
PADDED = 2  # the length is a multiple of it, as that of ZeRO's partition


class FlatParameters:
    """The trained parameters of a model, all float32, as views of one tensor, the `parameter` that an optimizer steps.

    On the CPU they lie as in ZeRO's flat tensor: vectorized loops round a tensor's last entries otherwise, and so
    engines compute the same bits. On CUDA each begins at an aligned address; entries in between stay zero.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], unit: int | None = None) -> None:
        """Move the parameters there. `unit`: each begins at a multiple of it; None: the device's."""
        self._parameters = list(parameters)
        device = self._parameters[0].device
        if unit is None:
            unit = ALIGNED if device.type == "cuda" else 1
        self._sizes = [parameter.numel() for parameter in self._parameters]
        self._gaps = [-size % unit for size in self._sizes]
        self._gaps[-1] += -(sum(self._sizes) + sum(self._gaps)) % PADDED
        self._zeros = torch.zeros(max(self._gaps), device=device)
        self.parameter = nn.Parameter(self.flatten(parameter.detach() for parameter in self._parameters))
        for parameter, view in zip(self._parameters, self.views(self.parameter.detach()), strict=True):
            parameter.data = view

    def flatten(self, tensors: Iterable[Tensor]) -> Tensor:
        """A new flat tensor of a tensor for each parameter, in their order."""
        pieces = []
        for tensor, gap in zip(tensors, self._gaps, strict=True):
            pieces.append(tensor.reshape(-1))
            if gap:
                pieces.append(self._zeros[:gap])
        return torch.cat(pieces)

    def views(self, flat: Tensor) -> list[Tensor]:
        """The parts of a flat tensor, each in its parameter's shape."""
        both = [size for pair in zip(self._sizes, self._gaps, strict=True) for size in pair]
        parts = flat.split(both)[::2]
        return [part.view(parameter.shape) for part, parameter in zip(parts, self._parameters, strict=True)]

    def collect_gradients(self) -> Tensor:
        """Move the parameters' gradients into that of the flat one, which is returned; zero where there is none."""
        gradients = (torch.zeros_like(one) if one.grad is None else one.grad for one in self._parameters)
        self.parameter.grad = flat = self.flatten(gradients)
        for parameter in self._parameters:
            parameter.grad = None
        return flat
