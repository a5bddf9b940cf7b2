"""What the backbones' sections share: their base, and numbers by level and axis."""

from collections.abc import Iterable
from math import inf
from typing import Any, ClassVar

from pydantic import PositiveInt

from llm4seg.config.schema.base import Section


def halvings(levels: int) -> int:
    """The stride of the last of `levels` resolutions, each half of the one before."""
    return int(2 ** (levels - 1))


def check_odd(kernels: Iterable[int]) -> None:
    found = [*kernels]
    if any(kernel % 2 == 0 for kernel in found):
        raise ValueError(f"kernels must be odd, found {found}")


PerAxis = PositiveInt | tuple[PositiveInt, ...]  # one number, or one for each axis


def each_axis(value: PerAxis, dims: int) -> tuple[int, ...]:
    """A number for each of `dims` axes."""
    return value if isinstance(value, tuple) else (value,) * dims


def _lists(value: Any, largest: float) -> bool:
    """Whether a value is a list of whole numbers from 1 to `largest`, or of lists with one for each of 2 or 3 axes."""

    def fits(one: Any) -> bool:
        return type(one) is int and 1 <= one <= largest

    return isinstance(value, list | tuple) and all(
        fits(one) or (isinstance(one, list | tuple) and len(one) in (2, 3) and all(map(fits, one))) for one in value
    )


def as_kernels(value: Any) -> Any:
    """Kernel sizes as given; one message for whatever else there is."""
    if not _lists(value, inf):
        raise ValueError("allowed: for each level an odd number, or a list with one for each axis")
    return value


def as_strides(value: Any) -> Any:
    """Strides as given; one message for whatever else there is."""
    if value not in (None, "auto") and not _lists(value, 2):
        raise ValueError(
            "allowed: null, auto, or for each step between levels 1 or 2, or a list with one for each axis"
        )
    return value


class BackboneSection(Section):
    """Base of the backbones' sections: properties of the network beside its parameters."""

    name: ClassVar[str]  # in model.backbone
    title: ClassVar[str]  # as its authors write it; may hold parameters: {encoder}
    spatial_dims: ClassVar[tuple[int, ...]] = (2, 3)
    instance_normed: ClassVar[bool] = False  # at the coarsest level, where it then needs more than one position
    batch_normed: ClassVar[bool] = False  # there, too: more than one position or image
    fixed_size: ClassVar[bool] = False  # built for images of one size

    @property
    def stride(self) -> int:
        """Input pixels per position of the coarsest feature map, where that is the same along each axis."""
        raise NotImplementedError

    def axis_strides(self, dims: int) -> tuple[int, ...]:
        """Input pixels per position of the coarsest feature map, along each of `dims` axes."""
        return (self.stride,) * dims

    @property
    def auto_strides(self) -> bool:
        """Whether strides are found with the prepared data (see `data.pooling`)."""
        return False

    @property
    def by_axis(self) -> dict[str, tuple[PerAxis, ...]]:
        """Parameters that are lists of one number, or of one for each axis."""
        return {}

    @property
    def decoder_channels(self) -> tuple[int, ...]:
        """Channels of the decoder's map at each of its resolutions, the coarsest first; empty: it is not made so."""
        return ()
