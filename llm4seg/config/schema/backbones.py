"""Sections on the CNN encoder-decoders.

A backbone is added here (its class, and a field in `Backbones`), as a builder in models/backbones/ and as a section of
params.yaml.
"""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from llm4seg.config.schema.base import AtLeastTwo, Section

Widths = Annotated[tuple[PositiveInt, ...], Field(min_length=2)]
Four = Annotated[tuple[PositiveInt, ...], Field(min_length=4, max_length=4)]


def halvings(levels: int) -> int:
    """The stride of the last of `levels` resolutions, each half of the one before."""
    return int(2 ** (levels - 1))


def check_odd(kernels: tuple[int, ...]) -> None:
    if any(kernel % 2 == 0 for kernel in kernels):
        raise ValueError(f"kernels must be odd, found {list(kernels)}")


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
        """Input pixels per position of the coarsest feature map, along each axis."""
        raise NotImplementedError


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


class AttentionUNet(BackboneSection):
    """MONAI's AttentionUnet: channels of each level."""

    name = "attention-unet"
    title = "Attention U-Net"
    batch_normed = True

    channels: Annotated[tuple[AtLeastTwo, ...], Field(min_length=2)]

    @property
    def stride(self) -> int:
        return halvings(len(self.channels))


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

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.filters % 8:  # the groups of its norm
            raise ValueError(f"filters: found {self.filters}, allowed: multiples of 8")
        if len(self.blocks_up) != len(self.blocks_down) - 1:
            raise ValueError("blocks_up must be one shorter than blocks_down")
        return self


class DynUNet(BackboneSection):
    """MONAI's DynUNet, nnU-Net's network: channels and kernel size of each level, and whether blocks are residual."""

    name = "dynunet"
    title = "DynUNet"
    instance_normed = True

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


class Backbones(Section):
    """The chosen backbone, and a section for each backbone, of which only the chosen one's takes effect."""

    backbone: str
    cmunext: CMUNeXt
    unet: UNet
    attention_unet: AttentionUNet
    unet_plus_plus: UNetPlusPlus
    segresnet: SegResNet
    dynunet: DynUNet
    unetr: UNETR
    swin_unetr: SwinUNETR
    smp: SMP

    @classmethod
    def sections(cls) -> dict[str, str]:
        """The name of each backbone's section, by the value of `backbone`."""
        types = {field: info.annotation for field, info in cls.model_fields.items()}
        return {
            one.name: field
            for field, one in types.items()
            if isinstance(one, type) and issubclass(one, BackboneSection)
        }

    @field_validator("backbone")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in (known := cls.sections()):
            *others, last = map(repr, known)
            raise ValueError(f"input should be {', '.join(others)} or {last}")
        return name

    @property
    def chosen(self) -> BackboneSection:
        """The section of the chosen backbone."""
        section: BackboneSection = getattr(self, self.sections()[self.backbone])
        return section

    @property
    def stride(self) -> int:
        """Input pixels per position of the coarsest feature map, along each axis."""
        return self.chosen.stride
