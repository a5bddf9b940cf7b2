"""The registry of backbone builders, by the type of a backbone's section of params.yaml."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from llm4seg.config.schema.backbone import BackboneSection
from llm4seg.models.backbones.parts import Backbone


@dataclass(frozen=True)
class IOShape:
    """A network's spatial dimensions and its channels in and out; `size`: the images', where it is known."""

    spatial_dims: int
    in_channels: int
    out_channels: int
    size: Sequence[int] | None = None


S = TypeVar("S", bound=BackboneSection)
BUILDERS: dict[type[BackboneSection], Callable[[Any, IOShape], Backbone]] = {}


def register(section: type[S]) -> Callable[[Callable[[S, IOShape], Backbone]], Callable[[S, IOShape], Backbone]]:
    """Decorator of the function that builds a section's network, with weights from torch's generator."""

    def add(builder: Callable[[S, IOShape], Backbone]) -> Callable[[S, IOShape], Backbone]:
        BUILDERS[section] = builder
        return builder

    return add


def build_backbone(section: BackboneSection, shape: IOShape) -> Backbone:
    """The network of a backbone's section."""
    assert shape.size is not None or not section.fixed_size, f"model.backbone: {section.name} needs its images' size"
    return BUILDERS[type(section)](section, shape)
