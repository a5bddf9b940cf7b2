"""CNN encoder-decoders: CMUNeXt, and networks of MONAI and segmentation_models_pytorch, imported on use."""

from collections.abc import Sequence

from llm4seg.config.schema import Model
from llm4seg.models.backbones import cmunext, monai_cnn, monai_transformers, smp
from llm4seg.models.backbones.parts import Backbone

__all__ = ["Backbone", "build_backbone"]


def build_backbone(
    section: Model, spatial_dims: int, in_channels: int, out_channels: int, size: Sequence[int] | None
) -> Backbone:
    """The network that `model.backbone` names, its weights drawn from torch's generator.

    `size`: that of the images, if known; `unetr` is built for one.
    """
    numbers = (spatial_dims, in_channels, out_channels)
    match section.backbone:
        case "cmunext":
            return cmunext.build(section.cmunext, *numbers)
        case "unet":
            return monai_cnn.unet(section.unet, *numbers)
        case "attention-unet":
            return monai_cnn.attention_unet(section.attention_unet, *numbers)
        case "unet++":
            return monai_cnn.unet_plus_plus(section.unet_plus_plus, *numbers)
        case "segresnet":
            return monai_cnn.segresnet(section.segresnet, *numbers)
        case "dynunet":
            return monai_cnn.dynunet(section.dynunet, *numbers)
        case "unetr":
            return monai_transformers.unetr(section.unetr, *numbers, size)
        case "swin-unetr":
            return monai_transformers.swin_unetr(section.swin_unetr, *numbers)
        case "smp":
            return smp.build(section.smp, in_channels, out_channels, size)
