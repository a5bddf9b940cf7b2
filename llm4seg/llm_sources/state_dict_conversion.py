"""Conversion of a checkpoint's state dict to transformers' modules: no old buffers, new names, merged experts."""

import copy
import re
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from llm4seg.llm.transformers_internals import ignored_names
from llm4seg.utils.errors import InputError

OLD_BUFFERS = r"rotary_emb\.inv_freq"  # ignored by transformers in any family


class PublishedNames:
    """Where a checkpoint has the modules of a meta model, by transformers' own rules for loading it.

    ViT's `layers.3` is `vit.encoder.layer.3` in most files, and SigLIP's encoder of images lies beside one of texts.
    """

    def __init__(self, model: Any, names: Collection[str]) -> None:
        present = model.state_dict().keys()
        rules = _rules(model) if names else ([], [])
        self._loaded = {name: _loaded_name(name, present, model.base_model_prefix, rules) for name in names}

    def path(self, path: str) -> str:
        """The path of a module in the checkpoint: what the names of its tensors there have in common.

        The same as in the model where none is loaded into it. Raises InputError where several are for one tensor.
        """
        names = {name: loaded for name, loaded in self._loaded.items() if loaded.startswith(f"{path}.")}
        if len(set(names.values())) < len(names):
            raise InputError(f"the LLM's tensors: {path} is there more than once: {', '.join(sorted(names))}")
        shared = []
        for parts in zip(*(name.split(".")[:-1] for name in names), strict=False):
            if len(set(parts)) > 1:
                break
            shared.append(parts[0])
        return ".".join(shared) or path


def _loaded_name(name: str, present: Collection[str], base: str, rules: tuple[list[Any], list[Any]]) -> str:
    """The name in a model with `present` names of a tensor that a checkpoint, maybe with a head, has as `name`.

    `base`: the name that a model with a head has this one under.
    """
    from transformers.core_model_loading import rename_source_key

    if name in present:
        return name
    new = str(rename_source_key(name, *rules)[0])
    without_head = new.removeprefix(f"{base}.")
    return without_head if without_head in present else new


def _rules(model: Any) -> tuple[list[Any], list[Any]]:
    """transformers' rules for a model's checkpoints: new names for single tensors, and conversions of several."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming

    rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    return renamings, [rule for rule in rules if isinstance(rule, WeightConverter)]


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
    from transformers.core_model_loading import WeightRenaming, dot_natural_key, rename_source_key

    renamings, converters = _rules(model)
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
