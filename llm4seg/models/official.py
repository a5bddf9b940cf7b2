"""Weights of the released LLM4Seg code's CMUNeXt under this project's names."""

import re
from collections.abc import Mapping

from torch import Tensor

from llm4seg.errors import InputError


def from_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a `Hybrid` from the state of a released network, the LLM layer included.

    Raises InputError naming a weight that no released CMUNeXt has.
    """
    stages = max((int(found[1]) for name in state if (found := re.match(r"encoder(\d+)\.", name))), default=0)
    prefixes = _prefixes(stages)
    return {_renamed(name, prefixes): tensor for name, tensor in state.items()}


def _prefixes(stages: int) -> dict[str, str]:
    """How released names begin, and how ours do. Released numbers count stages from 1, and the decoder's downwards."""
    prefixes = {
        "stem.conv": "encoder.stem",
        "Conv_1x1": "decoder.head",
        "llm4seg.adapter1": "bottleneck.adapter_in",
        "llm4seg.adapter2": "bottleneck.adapter_out",
        "llm4seg.llm": "bottleneck.core.layers.0",
    }
    for stage in range(stages):
        prefixes[f"encoder{stage + 1}.block"] = f"encoder.stages.{stage}.mixers"
        prefixes[f"encoder{stage + 1}.up.conv"] = f"encoder.stages.{stage}.out"
        prefixes[f"Up{stages - stage}.up"] = f"decoder.steps.{stage}.up"
        prefixes[f"Up_conv{stages - stage}.conv"] = f"decoder.steps.{stage}.fuse"
    return prefixes


def _renamed(name: str, prefixes: Mapping[str, str]) -> str:
    for prefix, ours in prefixes.items():
        if name.startswith(prefix + "."):
            return ours + name.removeprefix(prefix)
    raise InputError(f"released weights: {name!r} is no weight of a released CMUNeXt")
