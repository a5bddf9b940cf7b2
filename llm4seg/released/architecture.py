"""The released code's CMUNeXt: names of its weights, its shape, and the settings of its LLM block."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from torch import Tensor

from llm4seg.config.schema import Model, Overrides
from llm4seg.config.schema.backbones import CMUNeXt
from llm4seg.utils.errors import InputError

STAGES = 5
FAMILIES = ("llama", "qwen2")  # architectures of LLMs that the released code builds
LLM_PREFIX = "llm4seg.llm."

# parameters with which the block computes what the released block does: also the preset `released`
RELEASED: Overrides = {
    "model.llm.position": "released",
    "model.llm.attention": "causal",
    "model.llm.adapter.kind": "linear",
    "model.llm.residual": "none",
    "model.llm.norm": False,
    "model.llm.pool": 1,
    "model.llm.dtype": "fp32",
    "model.llm.train_only": False,
}

# prefixes of released names: this project's; released names count stages from 1, and the decoder's downward
PREFIXES = {
    "stem.conv": "encoder.stem",
    **{f"encoder{stage + 1}.block": f"encoder.stages.{stage}.mixers" for stage in range(STAGES)},
    **{f"encoder{stage + 1}.up.conv": f"encoder.stages.{stage}.out" for stage in range(STAGES)},
    "llm4seg.adapter1": "bottleneck.adapter_in",
    "llm4seg.llm": "bottleneck.core.layers.0",
    "llm4seg.adapter2": "bottleneck.adapter_out",
    **{f"Up{STAGES - step}.up": f"decoder.steps.{step}.up" for step in range(STAGES - 1)},
    **{f"Up_conv{STAGES - step}.conv": f"decoder.steps.{step}.fuse" for step in range(STAGES - 1)},
    "Conv_1x1": "decoder.head",
}


def from_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a `Hybrid` from the state of a released network, the LLM layer included.

    Raises InputError naming a weight that no released CMUNeXt has.
    """
    return {_renamed(name, PREFIXES): tensor for name, tensor in state.items()}


def to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a released network from that of a `Hybrid`. Raises InputError naming a weight without a place."""
    released = {new: old for old, new in PREFIXES.items()}
    return {_renamed(name, released): tensor for name, tensor in state.items()}


def _renamed(name: str, prefixes: Mapping[str, str]) -> str:
    for prefix, other in prefixes.items():
        if name.startswith(prefix + "."):
            return other + name.removeprefix(prefix)
    raise InputError(f"{name!r} is no weight of a released CMUNeXt")


@dataclass(frozen=True)
class Shape:
    """The CNN of a released network, and its channels in and out."""

    cmunext: CMUNeXt
    in_channels: int
    out_channels: int


def official_shape(state: Mapping[str, Tensor]) -> Shape:
    """The shape of a released network, from its weights. Raises InputError naming a weight of a wrong shape."""
    stages = range(1, STAGES + 1)
    dims = tuple(_side(state, f"encoder{stage}.up.conv.0.weight", 0) for stage in stages)
    kernels = tuple(_kernel(state, f"encoder{stage}.block.0.0.fn.0.weight") for stage in stages)
    depths = tuple(_depth(state, stage) for stage in stages)
    return Shape(
        CMUNeXt(dims=dims, depths=depths, kernels=kernels),
        in_channels=_side(state, "stem.conv.0.weight", 1),
        out_channels=_side(state, "Conv_1x1.weight", 0),
    )


def _side(state: Mapping[str, Tensor], name: str, axis: int) -> int:
    """One side of a two-dimensional convolution's weight."""
    if name not in state:
        raise InputError(f"{name} is missing, so this is no released CMUNeXt")
    shape = state[name].shape
    if len(shape) != 4 or 0 in shape:
        raise InputError(f"{name}: found shape {[*shape]}, allowed: the four sides of a 2-D convolution")
    return shape[axis]


def _kernel(state: Mapping[str, Tensor], name: str) -> int:
    if (kernel := _side(state, name, -1)) % 2 == 0:
        raise InputError(f"{name}: found a kernel of {kernel}, allowed: odd ones")
    return kernel


def _depth(state: Mapping[str, Tensor], stage: int) -> int:
    return len({found[1] for name in state if (found := re.match(rf"encoder{stage}\.block\.(\d+)\.", name))})


def check_official(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raise InputError naming the first weight of `state` that is missing, unexpected, or not as in `wanted`."""
    for name in sorted(wanted.keys() | state.keys()):
        if name not in state:
            raise InputError(f"{name} is missing")
        if name not in wanted:
            raise InputError(f"{name} has no place in this network")
        if (found := state[name].shape) != (allowed := wanted[name].shape):
            raise InputError(f"{name}: found shape {[*found]}, allowed: {[*allowed]}")
        if state[name].is_floating_point() != wanted[name].is_floating_point():
            raise InputError(f"{name}: found {state[name].dtype}, allowed: {wanted[name].dtype}")
        if not state[name].isfinite().all():
            raise InputError(f"{name} holds values that are not finite")


def check_expressible(section: Model, spatial_dims: int) -> None:
    """Raise InputError naming the first parameter of a model that the released code cannot express."""
    limits: list[tuple[str, Any, tuple[Any, ...]]] = [
        ("model.backbone", section.backbone, ("cmunext",)),
        ("model.cmunext.dims, how many", len(section.cmunext.dims), (STAGES,)),
        ("model.bottleneck", section.bottleneck, ("identity", "llm")),
        ("data.spatial_dims", spatial_dims, (2,)),
    ]
    if section.bottleneck == "llm":
        limits.append(("model.llm.layer, how many", len(section.llm.layer), (1,)))
        limits.append(("model.llm.training", section.llm.training, ("frozen", "full")))
        limits += [(name, attrgetter(name.removeprefix("model."))(section), (only,)) for name, only in RELEASED.items()]
    for name, found, allowed in limits:
        if found not in allowed:
            choices = " or ".join(map(str, allowed))
            raise InputError(f"{name}: found {found}, allowed: {choices}; the released code has nothing else")
