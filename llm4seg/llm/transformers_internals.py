"""The private names of transformers that this project uses, so that an upgrade has one place to look at.

`transformers` is imported where it is used, since that takes seconds.
"""

from typing import Any

from torch import nn


def decode_special_floats(config: dict[str, Any]) -> dict[str, Any]:
    """A config.json's values with infinity and NaN, which JSON cannot express, in place of transformers' tags."""
    from transformers import PreTrainedConfig

    values: dict[str, Any] = PreTrainedConfig._decode_special_floats(config)
    return values


def set_attention(config: Any, implementation: str | None) -> None:
    """Set a config's attention implementation; None: transformers' default.

    The public `set_attn_implementation` does nothing for architectures whose source it cannot parse.
    """
    config._attn_implementation = implementation


def attention(config: Any) -> str | None:
    """The attention kernel that a config names."""
    name: str | None = config._attn_implementation
    return name


def initialize(model: Any, module: nn.Module) -> None:
    """Initialize a module's parameters by its architecture's own initializer, from torch's generator.

    The public `init_weights` initializes all of a model.
    """
    module.apply(model._init_weights)


def ignored_names(model: Any) -> list[str]:
    """Regular expressions for tensors of old checkpoints that transformers ignores in this family."""
    return [*(model._keys_to_ignore_on_load_unexpected or ())]
