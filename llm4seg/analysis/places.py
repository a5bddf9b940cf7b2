"""Places: where features are read in a forward pass, by forward hooks around the bottleneck and in the LLM's layers.

`encoder` is what enters the bottleneck and `decoder_input` what leaves it. Between them, as far as the bottleneck has
them: `adapter_in` (what leaves the first adapter), of LLM layer N `layer.N.attention` and `layer.N.mlp` (what each adds
to the tokens), and `llm` (what leaves the last layer, or the LLM's final norm).
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from llm4seg.llm.transformers_internals import attention, set_attention
from llm4seg.models import Hybrid
from llm4seg.models.bottleneck import LLMLayers, TokenBlock

BEFORE, ADAPTER, LLM, AFTER = "encoder", "adapter_in", "llm", "decoder_input"
# how families of transformers call the parts of a decoder or encoder layer
ATTENTION = ("self_attn", "attention", "attn", "self_attention")
MLP = ("mlp", "feed_forward", "ffn", "block_sparse_moe", "moe")
# DINOv2 and DINOv3 scale what each part gives before it is added
PARTS = {"attention": ("layer_scale1", ATTENTION), "mlp": ("layer_scale2", MLP)}


@dataclass
class Features:
    """Features of one image: at each place its tokens (T, D) in float32, of a grid in raster order.

    `attention`: of each LLM layer the weights (heads, T, T), rows sum to 1; only where they were asked for.
    """

    tokens: dict[str, Tensor] = field(default_factory=dict)
    grids: dict[str, tuple[int, ...]] = field(default_factory=dict)
    attention: dict[int, Tensor] = field(default_factory=dict)


@torch.no_grad()
def features_of(model: Hybrid, image_CS: Tensor, layers: Sequence[int] = ()) -> Features:
    """The features of one image, which passes the model alone, in evaluation mode; on the CPU.

    `layers`: the numbers of the model's LLM layers, in its order. They attend by transformers' `eager` kernel, the one
    that returns its weights. The CNN alone has the place `encoder` only, as has a block that prediction leaves out.
    """
    model.eval()
    device = next(model.parameters()).device
    found = Features()
    with _listening(model, found, layers), eager_attention(model):
        model(image_CS[None].float().to(device))
    if isinstance(model.bottleneck, TokenBlock) and ADAPTER not in found.tokens:
        del found.tokens[AFTER], found.grids[AFTER]
    return found


@contextmanager
def _listening(model: Hybrid, found: Features, layers: Sequence[int]) -> Iterator[None]:
    """Hooks that fill `found` within the block."""
    bottleneck = model.bottleneck

    def note_map(place: str, features_NCS: Tensor) -> None:
        found.tokens[place] = _plain(features_NCS[0].flatten(1).T)
        found.grids[place] = tuple(features_NCS.shape[2:])

    def note_grid(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        found.grids |= dict.fromkeys(inside, tuple(inputs[1]))

    inside = block_places(bottleneck, layers)
    with ExitStack() as hooks:
        before = bottleneck.register_forward_pre_hook(lambda module, inputs: note_map(BEFORE, inputs[0]))
        hooks.callback(before.remove)
        if not isinstance(bottleneck, nn.Identity):
            after = bottleneck.register_forward_hook(lambda module, inputs, out: note_map(AFTER, out))
            hooks.callback(after.remove)
        if isinstance(bottleneck, TokenBlock):
            hooks.callback(bottleneck.core.register_forward_pre_hook(note_grid).remove)
        for place, module in inside.items():
            hooks.callback(module.register_forward_hook(_note_tokens(found, place)).remove)
        for layer, module in attention_modules(bottleneck, layers).items():
            hooks.callback(module.register_forward_hook(_note_weights(found, layer)).remove)
        yield


def _note_tokens(found: Features, place: str) -> Any:
    def note(module: nn.Module, inputs: tuple[Any, ...], out: Any) -> None:
        tokens_NTD = out[0] if isinstance(out, tuple) else out
        found.tokens[place] = _plain(tokens_NTD[0])

    return note


def _note_weights(found: Features, layer: int) -> Any:
    def note(module: nn.Module, inputs: tuple[Any, ...], out: Any) -> None:
        if isinstance(out, tuple) and len(out) > 1 and isinstance(out[1], Tensor):
            found.attention[layer] = _plain(out[1][0])

    return note


def block_places(bottleneck: nn.Module, layers: Sequence[int]) -> dict[str, nn.Module]:
    """The modules inside of a token block whose outputs are places, by the names of these, in the order of the pass."""
    if not isinstance(bottleneck, TokenBlock):
        return {}
    places = {ADAPTER: bottleneck.adapter_in}
    if isinstance(bottleneck.core, LLMLayers):
        for number, layer in zip(layers, bottleneck.core.layers, strict=True):
            for part, (scale, names) in PARTS.items():
                if (module := _child(layer, (scale, *names))) is not None:
                    places[f"layer.{number}.{part}"] = module
        places[LLM] = bottleneck.core
    return places


def attention_modules(bottleneck: nn.Module, layers: Sequence[int]) -> dict[int, nn.Module]:
    """The attention module of each LLM layer, by the layer's number."""
    if not (isinstance(bottleneck, TokenBlock) and isinstance(bottleneck.core, LLMLayers)):
        return {}
    found = {number: _child(layer, ATTENTION) for number, layer in zip(layers, bottleneck.core.layers, strict=True)}
    return {number: module for number, module in found.items() if module is not None}


def _child(layer: nn.Module, names: Sequence[str]) -> nn.Module | None:
    """The first child of these names; None where a family calls it otherwise."""
    children = dict(layer.named_children())
    return next((children[name] for name in names if name in children), None)


@contextmanager
def eager_attention(model: Hybrid) -> Iterator[None]:
    """LLM layers attend by the `eager` kernel within the block, and then by the one that they had."""
    configs = {id(one.config): one.config for one in model.bottleneck.modules() if _attends(one)}
    kernels = {key: attention(config) for key, config in configs.items()}
    for config in configs.values():
        set_attention(config, "eager")
    try:
        yield
    finally:
        for key, config in configs.items():
            set_attention(config, kernels[key])


def _attends(module: nn.Module) -> bool:
    return hasattr(module, "is_causal") and hasattr(module, "config")


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().float().cpu().contiguous()
