"""The choice of a backbone, among the sections of all."""

from pydantic import field_validator

from llm4seg.config.schema.backbone import BackboneSection
from llm4seg.config.schema.backbones import (
    SMP,
    UNETR,
    AttentionUNet,
    CMUNeXt,
    DynUNet,
    SegResNet,
    SwinUNETR,
    UNet,
    UNetPlusPlus,
)
from llm4seg.config.schema.base import Section


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
    def chosen_name(self) -> str:
        """The name of the chosen backbone's section."""
        return self.sections()[self.backbone]

    @property
    def chosen(self) -> BackboneSection:
        """The section of the chosen backbone."""
        section: BackboneSection = getattr(self, self.chosen_name)
        return section

    def axis_strides(self, dims: int) -> tuple[int, ...]:
        """Input pixels per position of the coarsest feature map, along each of `dims` axes."""
        return self.chosen.axis_strides(dims)
