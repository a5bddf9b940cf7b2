"""Sections on the CNN encoder-decoders.

A backbone is added here (its class), as a field of `Backbones` in backbone_choice.py, as a builder in models/backbones/
and as a section of params.yaml.
"""

from math import prod
from typing import Annotated, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationInfo,
    model_validator,
)

from llm4seg.config.schema.backbone import (
    BackboneSection,
    PerAxis,
    as_kernels,
    as_strides,
    check_odd,
    each_axis,
    halvings,
)
from llm4seg.config.schema.base import SECTIONS_ALONE, AtLeastTwo
from llm4seg.utils.errors import InputError

Widths = Annotated[tuple[PositiveInt, ...], Field(min_length=2)]
Four = Annotated[tuple[PositiveInt, ...], Field(min_length=4, max_length=4)]


class CMUNeXt(BackboneSection):
    """CMUNeXt: channels, mixers and kernel size of each stage, the finest first."""

    name = "cmunext"
    title = "CMUNeXt"
    batch_normed = True

    dims: Widths
    depths: tuple[PositiveInt, ...]
    kernels: tuple[PositiveInt, ...]

    @property
    def stride(self) -> int:
        return halvings(len(self.dims))

    @property
    def decoder_channels(self) -> tuple[int, ...]:
        return self.dims[-2::-1]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not len(self.dims) == len(self.depths) == len(self.kernels):
            raise ValueError("dims, depths and kernels must be equally long")
        check_odd(self.kernels)
        return self


class UNet(BackboneSection):
    """MONAI's UNet: channels of each level, and convolutions per level in residual units (0: a plain convolution)."""

    name = "unet"
    title = "U-Net"
    instance_normed = True

    channels: Widths
    residual_units: NonNegativeInt

    @property
    def stride(self) -> int:
        return halvings(len(self.channels))

    @property
    def decoder_channels(self) -> tuple[int, ...]:
        return (*self.channels[-3::-1], 0)  # the last step's are the classes


class AttentionUNet(BackboneSection):
    """MONAI's AttentionUnet: channels of each level."""

    name = "attention-unet"
    title = "Attention U-Net"
    batch_normed = True

    channels: Annotated[tuple[AtLeastTwo, ...], Field(min_length=2)]

    @property
    def stride(self) -> int:
        return halvings(len(self.channels))

    @property
    def decoder_channels(self) -> tuple[int, ...]:
        return self.channels[-2::-1]


class UNetPlusPlus(BackboneSection):
    """MONAI's BasicUNetPlusPlus: channels of its five levels, and of its last upsampling."""

    name = "unet++"
    title = "UNet++"
    instance_normed = True

    features: Annotated[tuple[AtLeastTwo, ...], Field(min_length=6, max_length=6)]

    @property
    def stride(self) -> int:
        return halvings(5)


class SegResNet(BackboneSection):
    """MONAI's SegResNet: channels of the finest level, which double from level to level, and residual blocks."""

    name = "segresnet"
    title = "SegResNet"

    filters: PositiveInt
    blocks_down: Widths
    blocks_up: tuple[PositiveInt, ...]

    @property
    def stride(self) -> int:
        return halvings(len(self.blocks_down))

    @property
    def decoder_channels(self) -> tuple[int, ...]:
        return tuple(self.filters * halvings(level) for level in range(len(self.blocks_up), 0, -1))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.filters % 8:  # the groups of its norm
            raise ValueError(f"filters: found {self.filters}, allowed: multiples of 8")
        if len(self.blocks_up) != len(self.blocks_down) - 1:
            raise ValueError("blocks_up must be one shorter than blocks_down")
        return self


class DynUNet(BackboneSection):
    """MONAI's DynUNet, nnU-Net's network: channels and kernel size of each level, and whether blocks are residual.

    `strides`: of each step from a level to the next; null: 2; `auto`: by the prepared volumes, which may leave coarse
    levels out and make kernels 1 along an axis.
    """

    name = "dynunet"
    title = "DynUNet"
    instance_normed = True

    filters: Annotated[tuple[PositiveInt, ...], Field(min_length=3)]
    kernels: Annotated[tuple[PerAxis, ...], BeforeValidator(as_kernels)]
    strides: Annotated[Literal["auto"] | tuple[PerAxis, ...] | None, BeforeValidator(as_strides)]
    residual: bool

    def axis_strides(self, dims: int) -> tuple[int, ...]:
        """Raises InputError for strides that are `auto`: they are known with the prepared data."""
        if self.strides == "auto":
            raise InputError(
                "model.dynunet.strides: found auto, allowed where no prepared data are read: null or a list"
            )
        if self.strides is None:
            return (halvings(len(self.filters)),) * dims
        steps = [each_axis(step, dims) for step in self.strides]
        return tuple(prod(axis) for axis in zip(*steps, strict=True))

    @property
    def auto_strides(self) -> bool:
        return self.strides == "auto"

    @property
    def by_axis(self) -> dict[str, tuple[PerAxis, ...]]:
        return {"kernels": self.kernels, "strides": self.strides if isinstance(self.strides, tuple) else ()}

    @property
    def decoder_channels(self) -> tuple[int, ...]:
        return self.filters[-2::-1]

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo) -> Self:
        if len(self.filters) != len(self.kernels):
            raise ValueError("filters and kernels must be equally long")
        steps = len(self.strides) if isinstance(self.strides, tuple) else len(self.filters) - 1
        if steps != len(self.filters) - 1 and info.context != SECTIONS_ALONE:  # a preset may have other levels
            raise ValueError("strides must be one shorter than filters")
        check_odd(size for kernel in self.kernels for size in (kernel if isinstance(kernel, tuple) else (kernel,)))
        return self


class UNETR(BackboneSection):
    """MONAI's UNETR: channels of the finest level, and its vision transformer of 12 layers on patches of 16.

    Its position embedding is trained for `data.size`.
    """

    name = "unetr"
    title = "UNETR"
    fixed_size = True

    feature_size: PositiveInt
    hidden_size: PositiveInt
    mlp_size: PositiveInt
    heads: PositiveInt

    @property
    def stride(self) -> int:
        return 16

    @property
    def decoder_channels(self) -> tuple[int, ...]:
        return tuple(self.feature_size * halvings(level) for level in (4, 3, 2, 1))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.hidden_size % self.heads:
            raise ValueError(f"heads: found {self.heads}, allowed: divisors of hidden_size, {self.hidden_size}")
        return self


class SwinUNETR(BackboneSection):
    """MONAI's SwinUNETR: channels of the finest level; layers and heads of its four stages; sides of a window."""

    name = "swin-unetr"
    title = "Swin UNETR"
    instance_normed = True

    feature_size: PositiveInt
    depths: Four
    heads: Four
    window: AtLeastTwo

    @property
    def stride(self) -> int:
        return 32

    @property
    def decoder_channels(self) -> tuple[int, ...]:
        return tuple(self.feature_size * halvings(level) for level in (4, 3, 2, 1, 1))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.feature_size % 12:
            raise ValueError(f"feature_size: found {self.feature_size}, allowed: multiples of 12")
        widths = [self.feature_size * 2**stage for stage in range(len(self.heads))]
        for heads, width in zip(self.heads, widths, strict=True):
            if width % heads:
                raise ValueError(f"heads: found {heads}, allowed: divisors of that stage's channels, {width}")
        return self


class SMP(BackboneSection):
    """A network of segmentation_models_pytorch (2-D; `pip install -e '.[smp]'`).

    `weights` names the encoder's pre-trained weights.
    """

    name = "smp"
    title = "{architecture} on {encoder}"
    spatial_dims = (2,)

    architecture: Literal["unet", "unet++", "manet", "linknet", "fpn", "upernet", "segformer"]
    encoder: str
    weights: str | None

    @property
    def stride(self) -> int:
        return 32
