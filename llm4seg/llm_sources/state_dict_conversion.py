"""Conversion of a checkpoint's state dict to transformers' modules: no old buffers, new names, merged experts."""

import copy
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from llm4seg.llm.transformers_internals import ignored_names

OLD_BUFFERS = r"rotary_emb\.inv_freq"  # ignored by transformers in any family


def convert_state_dict(model: Any, path: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of the module `path` of a meta model, by transformers' own rules for loading checkpoints."""
    wanted = model.get_submodule(path).state_dict()
    built = {name: tensor for name, tensor in tensors.items() if name in wanted}
    if len(built) < len(tensors):
        built |= _converted(model, path, {name: tensor for name, tensor in tensors.items() if name not in wanted})
    ignored = re.compile("|".join([OLD_BUFFERS, *ignored_names(model)]))
    return {name: tensor for name, tensor in built.items() if name in wanted or not ignored.search(f"{path}.{name}")}


def _converted(model: Any, path: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under present names: each is added to the conversion that makes a new tensor of one or several."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key

    rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    by_pattern = {pattern: rule for rule in converters for pattern in rule.source_patterns}
    conversions: dict[str, Any] = {}
    for name in sorted(tensors, key=dot_natural_key):  # experts in their order
        old = f"{path}.{name}"
        new, pattern = rename_source_key(old, renamings, converters)
        conversion = copy.deepcopy(by_pattern[pattern]) if pattern else WeightRenaming(old, new)
        conversions.setdefault(new, conversion).add_tensor(new, old, pattern or old, tensors[name])
    built: dict[str, Any] = {}
    for new, conversion in conversions.items():
        built |= conversion.convert(new, model=model, config=model.config)
    return {
        name.removeprefix(f"{path}."): value[0] if isinstance(value, list) else value for name, value in built.items()
    }
