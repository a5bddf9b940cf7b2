"""A checkpoint's tensors as transformers' layers hold them: other names, and experts put together."""

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor


def as_built(model: Any, path: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the module `path` of a skeleton by the rules by which transformers itself loads checkpoints.

    Most families have none: then these are the same tensors.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key

    rules, wanted = get_model_conversion_mapping(model), model.get_submodule(path).state_dict()
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    by_pattern = {pattern: rule for rule in converters for pattern in rule.source_patterns}
    built: dict[str, Any] = {name: tensor for name, tensor in tensors.items() if name in wanted}
    jobs: dict[str, Any] = {}
    for name in sorted(tensors.keys() - built.keys(), key=dot_natural_key):  # experts in their order
        full = f"{path}.{name}"
        new, pattern = rename_source_key(full, renamings, converters)
        job = copy.deepcopy(by_pattern[pattern]) if pattern else WeightRenaming(full, new)
        jobs.setdefault(new, job).add_tensor(new, full, pattern or full, tensors[name])
    for new, job in jobs.items():
        found = job.convert(new, model=model, config=model.config)
        built |= {name.removeprefix(f"{path}."): value for name, value in found.items()}
    return {name: value[0] if isinstance(value, list) else value for name, value in built.items()}
