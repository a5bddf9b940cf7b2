"""Sections on the CNN encoder-decoders. Each says its `stride`: input pixels a bottleneck token stands for, an axis."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from llm4seg.config.schema.base import AtLeastTwo, Section

BackboneName = Literal[
    "cmunext", "unet", "attention-unet", "unet++", "segresnet", "dynunet", "unetr", "swin-unetr", "smp"
]
# whose instance norm at the coarsest level needs more than one position there
INSTANCE_NORMED: frozenset[BackboneName] = frozenset({"unet", "unet++", "dynunet", "swin-unetr"})
Widths = Annotated[tuple[PositiveInt, ...], Field(min_length=2)]
Four = Annotated[tuple[PositiveInt, ...], Field(min_length=4, max_length=4)]


def halvings(levels: int) -> int:
    """The stride of the last of `levels` resolutions, each half of the one before."""
    return int(2 ** (levels - 1))


def check_odd(kernels: tuple[int, ...]) -> None:
    if any(kernel % 2 == 0 for kernel in kernels):
        raise ValueError(f"kernels must be odd, found {list(kernels)}")


class CMUNeXt(Section):
    """CMUNeXt: channels, mixers and kernel size of each stage, the finest first."""

    dims: Widths
    depths: tuple[PositiveInt, ...]
    kernels: tuple[PositiveInt, ...]

    @property
    def stride(self) -> int:
        return halvings(len(self.dims))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not len(self.dims) == len(self.depths) == len(self.kernels):
            raise ValueError("dims, depths and kernels must be equally long")
        check_odd(self.kernels)
        return self


class UNet(Section):
    """MONAI's UNet: channels of each level, and convolutions a level in residual units (0: one without a residual)."""

    channels: Widths
    residual_units: NonNegativeInt

    @property
    def stride(self) -> int:
        return halvings(len(self.channels))


class AttentionUNet(Section):
    """MONAI's AttentionUnet: channels of each level."""

    channels: Annotated[tuple[AtLeastTwo, ...], Field(min_length=2)]

    @property
    def stride(self) -> int:
        return halvings(len(self.channels))


class UNetPlusPlus(Section):
    """MONAI's BasicUNetPlusPlus: channels of its five levels, and those that the last upsampling leaves."""

    features: Annotated[tuple[AtLeastTwo, ...], Field(min_length=6, max_length=6)]
    stride: ClassVar[int] = halvings(5)


class SegResNet(Section):
    """MONAI's SegResNet: channels of the finest level, which double from level to level, and residual blocks."""

    filters: PositiveInt
    blocks_down: Widths
    blocks_up: tuple[PositiveInt, ...]

    @property
    def stride(self) -> int:
        return halvings(len(self.blocks_down))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.filters % 8:  # the groups of its norm
            raise ValueError(f"filters: found {self.filters}, allowed: multiples of 8")
        if len(self.blocks_up) != len(self.blocks_down) - 1:
            raise ValueError("blocks_up must be one shorter than blocks_down")
        return self


class DynUNet(Section):
    """MONAI's DynUNet, nnU-Net's network: channels and kernel size of each level, and whether blocks are residual."""

    filters: Annotated[tuple[PositiveInt, ...], Field(min_length=3)]
    kernels: tuple[PositiveInt, ...]
    residual: bool

    @property
    def stride(self) -> int:
        return halvings(len(self.filters))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.filters) != len(self.kernels):
            raise ValueError("filters and kernels must be equally long")
        check_odd(self.kernels)
        return self


class UNETR(Section):
    """MONAI's UNETR: channels of the finest level, and its vision transformer of 12 layers on patches of 16.

    Its position embedding is trained for `data.size`.
    """

    feature_size: PositiveInt
    hidden_size: PositiveInt
    mlp_size: PositiveInt
    heads: PositiveInt
    stride: ClassVar[int] = 16

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.hidden_size % self.heads:
            raise ValueError(f"heads: found {self.heads}, allowed: divisors of hidden_size, {self.hidden_size}")
        return self


class SwinUNETR(Section):
    """MONAI's SwinUNETR: channels of the finest level; layers and heads of its four stages; sides of a window."""

    feature_size: PositiveInt
    depths: Four
    heads: Four
    window: AtLeastTwo
    stride: ClassVar[int] = 32

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.feature_size % 12:
            raise ValueError(f"feature_size: found {self.feature_size}, allowed: multiples of 12")
        widths = [self.feature_size * 2**stage for stage in range(len(self.heads))]
        for heads, width in zip(self.heads, widths, strict=True):
            if width % heads:
                raise ValueError(f"heads: found {heads}, allowed: divisors of that stage's channels, {width}")
        return self


class SMP(Section):
    """A network of segmentation_models_pytorch (2-D; `pip install -e '.[smp]'`).

    `weights` names pre-trained ones of the encoder.
    """

    architecture: Literal["unet", "unet++", "manet", "linknet", "fpn", "upernet", "segformer"]
    encoder: str
    weights: str | None
    stride: ClassVar[int] = 32


BackboneSection = CMUNeXt | UNet | AttentionUNet | UNetPlusPlus | SegResNet | DynUNet | UNETR | SwinUNETR | SMP
