"""The layer of the store that equals a released checkpoint's LLM layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llm4seg.llm.store import LayerStore, tensors_sha256
from llm4seg.released.architecture import LLM_PREFIX
from llm4seg.utils.errors import InputError


@dataclass(frozen=True)
class Verdict:
    """The identity of a checkpoint's LLM layer: `model.llm.layer`, `weights` and `training`, and a description."""

    layer: int
    weights: str
    training: str
    description: str


def llm_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a checkpoint's LLM layer under transformers' names."""
    return {name.removeprefix(LLM_PREFIX): tensor for name, tensor in state.items() if name.startswith(LLM_PREFIX)}


def verified(tensors: dict[str, Tensor], store: LayerStore) -> Verdict:
    """The layer of the store that holds the same values, whatever their dtype. Raises InputError when no layer does."""
    if not tensors:
        raise InputError(f"found no {LLM_PREFIX}* to verify; --drop-llm takes the store's layer unseen")
    for layer in store.layers:
        if same_values(tensors, store.load(layer)):
            description = f"layer {layer} of {store.source}, verified: sha256 {store.sha256(layer)[:12]}"
            return Verdict(layer, "pretrained", "frozen", description)
    tried = ", ".join(map(str, store.layers)) or "none"
    raise InputError(
        f"{LLM_PREFIX}* (sha256 {tensors_sha256(tensors)[:12]}) equals no layer of {store.source} in {store.folder} "
        f"(tried: {tried}); fetch the one it is, or see --keep-llm (trained or random) and --drop-llm in --help"
    )


def same_values(some: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> bool:
    """Whether tensors are equal in name, shape and value; in float32, as the released code holds them."""
    return some.keys() == others.keys() and all(torch.equal(some[name].float(), others[name].float()) for name in some)


def kept(tensors: Mapping[str, Tensor], store: LayerStore, layers: Sequence[int], weights: str) -> Verdict:
    """The checkpoint's own LLM layer as trained weights; it began as `weights` of the store's one layer in `layers`."""
    if not tensors:
        raise InputError(f"found no {LLM_PREFIX}* to keep")
    layer = _one(layers)
    return Verdict(layer, weights, "full", f"its own, kept; shaped like layer {layer} of {store.source}")


def dropped(store: LayerStore, layers: Sequence[int]) -> Verdict:
    """The store's one layer in `layers`, whatever the checkpoint holds."""
    layer = _one(layers)
    return Verdict(layer, "pretrained", "frozen", f"layer {layer} of {store.source}, NOT verified")


def _one(layers: Sequence[int]) -> int:
    if len(layers) != 1:
        raise InputError(f"model.llm.layer: found {[*layers]}, allowed: one layer; --layer says which")
    return layers[0]
