"""Quantization of frozen LLM layers: bfloat16, or matrices as 8-bit or 4-bit integers.

Integer matrices are buffers, no parameters: engines do not train, partition or save them.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from llm4seg.utils.errors import InputError

GROUP = 32  # neighbors in a row that share a scale: as in GGUF, so that weights from such a file keep their values
SMALLEST = torch.finfo(torch.float32).tiny  # replaces a scale of zero


def quantize(module: nn.Module, dtype: str) -> None:
    """Quantize the frozen parameters of a module to `model.llm.dtype`, in place; trained ones stay in float32.

    `int8` and `int4` replace the linear layers; norms, biases and other vectors stay in float32. Raises InputError for
    other matrices, such as the experts of a mixture, which would stay as large as they are.
    """
    if dtype == "bf16":
        for parameter in module.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.bfloat16()
    elif dtype in LINEAR:
        for name, child in list(module.named_modules()):
            if type(child) is nn.Linear:  # a subclass may compute something else
                module.set_submodule(name, LINEAR[dtype](child))
        for name, parameter in module.named_parameters():
            if parameter.ndim > 1:
                raise InputError(
                    f"model.llm.dtype: found {dtype}, allowed: fp32 or bf16, since {name} is no linear map"
                )


def quantized_entries(module: nn.Module) -> int:
    """The number of matrix entries that a module holds as integers, which are not among its parameters."""
    return sum(one.in_features * one.out_features for one in module.modules() if isinstance(one, QuantizedLinear))


class QuantizedLinear(nn.Module):
    """A frozen linear layer with a matrix of integers; gradients flow to its input.

    It computes in its input's dtype, or in autocast's.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features, self.bias = linear.in_features, linear.out_features, linear.bias
        for name, tensor in self.encoded(linear.weight.detach()).items():
            self.register_buffer(name, tensor, persistent=False)

    @staticmethod
    def encoded(weight_OI: Tensor) -> dict[str, Tensor]:
        """The buffers that encode a matrix."""
        raise NotImplementedError

    @property
    def weight(self) -> Tensor:
        """The matrix, dequantized to float32."""
        raise NotImplementedError

    def forward(self, tokens_NTI: Tensor) -> Tensor:
        out: Tensor = _Linear.apply(tokens_NTI, self)
        return out


class _Linear(torch.autograd.Function):
    """QuantizedLinear's function. The backward pass dequantizes the matrix again, so that none is kept for it."""

    @staticmethod
    def forward(ctx: Any, tokens_NTI: Tensor, linear: QuantizedLinear) -> Tensor:
        ctx.linear = linear
        dtype = tokens_NTI.dtype
        return functional.linear(
            tokens_NTI, linear.weight.to(dtype), None if linear.bias is None else linear.bias.to(dtype)
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_NTO: Tensor) -> tuple[Tensor, None]:
        return gradient_NTO @ ctx.linear.weight.to(gradient_NTO.dtype), None


class Int8Linear(QuantizedLinear):
    """Eight and a half bits an entry, as in GGUF's Q8_0: a group's entries are -127 to 127 times its scale."""

    codes: Tensor
    scale: Tensor

    @staticmethod
    def encoded(weight_OI: Tensor) -> dict[str, Tensor]:
        groups_OGM = _groups(weight_OI)
        scale_OG1 = (groups_OGM.abs().amax(2, keepdim=True) / 127).half()
        return {"codes": _levels(groups_OGM, scale_OG1, -127, 127).to(torch.int8), "scale": scale_OG1}

    @property
    def weight(self) -> Tensor:
        return self.codes.float().mul_(self.scale).flatten(1)[:, : self.in_features]


class Int4Linear(QuantizedLinear):
    """Five bits an entry, as in GGUF's Q4_1: a group's entries are 0 to 15 times its scale above its smallest.

    Two levels share a byte; those of the group's first half are the lower bits.
    """

    codes: Tensor
    scale: Tensor
    smallest: Tensor

    @staticmethod
    def encoded(weight_OI: Tensor) -> dict[str, Tensor]:
        groups_OGM = _groups(weight_OI)
        smallest, largest = groups_OGM.aminmax(dim=2, keepdim=True)
        scale, smallest = ((largest - smallest) / 15).half(), smallest.half()
        first, second = _levels(groups_OGM - smallest, scale, 0, 15).to(torch.uint8).chunk(2, dim=2)
        return {"codes": first | second << 4, "scale": scale, "smallest": smallest}

    @property
    def weight(self) -> Tensor:
        levels_OGM = torch.cat([self.codes & 15, self.codes >> 4], dim=2).float()
        return levels_OGM.mul_(self.scale).add_(self.smallest).flatten(1)[:, : self.in_features]


def _groups(weight_OI: Tensor) -> Tensor:
    """A matrix's rows in groups, the last one filled up with zeros."""
    return functional.pad(weight_OI, (0, -weight_OI.shape[1] % GROUP)).unflatten(1, (-1, GROUP))


def _levels(values_OGM: Tensor, scale_OG1: Tensor, lowest: int, highest: int) -> Tensor:
    """Quantization levels: each value in units of its group's scale, rounded and clamped."""
    return (values_OGM / scale_OG1.float().clamp(min=SMALLEST)).round().clamp(lowest, highest)


LINEAR = {"int8": Int8Linear, "int4": Int4Linear}
