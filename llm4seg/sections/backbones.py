"""Sections on the CNN encoder-decoders. Each says its `stride`: input pixels a bottleneck token stands for, an axis."""

from typing import Annotated, Self

from pydantic import Field, PositiveInt, model_validator

from llm4seg.sections.base import Section

Widths = Annotated[tuple[PositiveInt, ...], Field(min_length=2)]


class CMUNeXt(Section):
    """CMUNeXt: channels, mixers and kernel size of each stage, the finest first."""

    dims: Widths
    depths: tuple[PositiveInt, ...]
    kernels: tuple[PositiveInt, ...]

    @property
    def stride(self) -> int:
        return int(2 ** (len(self.dims) - 1))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not len(self.dims) == len(self.depths) == len(self.kernels):
            raise ValueError("dims, depths and kernels must be equally long")
        if any(kernel % 2 == 0 for kernel in self.kernels):
            raise ValueError(f"kernels must be odd, found {list(self.kernels)}")
        return self
