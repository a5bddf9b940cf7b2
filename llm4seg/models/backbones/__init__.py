"""CNN encoder-decoders: CMUNeXt, and networks of MONAI and segmentation_models_pytorch, imported on use."""

from importlib import import_module
from pkgutil import iter_modules

from llm4seg.models.backbones.parts import Backbone
from llm4seg.models.backbones.registry import BUILDERS, IOShape, build_backbone, register

__all__ = ["BUILDERS", "Backbone", "IOShape", "build_backbone", "register"]

for _module in iter_modules(__path__):  # each registers what it builds
    import_module(f"{__name__}.{_module.name}")
