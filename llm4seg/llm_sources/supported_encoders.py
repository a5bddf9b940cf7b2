"""Check that a vision transformer's layers can run alone, on the tokens of any grid.

As for decoders (`supported`), transformers' own forward pass of the complete model runs, without weights.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from llm4seg.llm.architecture import layer_list, unsupported
from llm4seg.llm.encoder import PatchRotation
from llm4seg.llm.layer_inputs import ENCODER_INPUTS, LayerSpec
from llm4seg.llm.transformers_internals import set_attention
from llm4seg.llm_sources.forward_pass import Call, Uses, layer_call, unsaved_buffers

SMALL = (2, 3)  # patches: rows and columns that cannot be taken for each other
LINE = (1, 7)  # a number of tokens that no encoder was made for
ROTARY = "rope_embeddings"  # transformers' name for an encoder's rotary positions


def runnable_encoder(model: Any) -> Any:
    """A copy of a meta model that can run, except for its layers; its weights are ones."""
    runnable = copy.deepcopy(model)
    set_attention(runnable.config, "eager")  # other implementations omit masks where they can
    path, layers = layer_list(runnable)
    parent, _, name = path.rpartition(".")
    setattr(runnable.get_submodule(parent), name, None)
    runnable.to_empty(device="cpu")
    for tensor in (*runnable.parameters(), *runnable.buffers()):
        tensor.fill_(1)
    setattr(runnable.get_submodule(parent), name, layers)
    if hasattr(runnable, ROTARY):  # with frequencies, which a meta model lacks
        setattr(runnable, ROTARY, type(getattr(runnable, ROTARY))(runnable.config))
    return runnable.eval()


def encoder_spec(runnable: Any, layer: int) -> LayerSpec:
    """The spec of a layer of a runnable encoder. Raises InputError where the layer cannot run alone."""
    call, grid = _call(runnable, layer)
    module = layer_list(runnable)[1][layer]
    rotation = PatchRotation.of(runnable.config)
    reason = _extra(call) or unsaved_buffers(module) or _other_attention(module, call)
    reason = reason or _other_rotation(call, rotation, grid) or _other_tokens(module, call, rotation)
    if reason:
        raise unsupported(runnable.config, f"layer {layer} {reason}")
    inputs = frozenset(name for name in ENCODER_INPUTS if name in call)
    return LayerSpec(inputs, None, None, rotates=call.get("position_embeddings") is not None, encoder=True)


def _call(runnable: Any, layer: int) -> tuple[Call, tuple[int, int]]:
    """The arguments of a layer in a forward pass of an image, and the image's grid of patches."""
    found: Call | str = ""
    for size, grid in _images(runnable.config):
        image = torch.zeros(1, getattr(runnable.config, "num_channels", 3), *size)
        with torch.random.fork_rng(devices=[]):  # masked autoencoders draw patches
            found = layer_call(
                layer_list(runnable)[1],
                layer,
                lambda image=image: runnable(image),  # type: ignore[misc]
                lambda shape: len(shape) == 3 and shape[-1] == runnable.config.hidden_size,
            )
        if not isinstance(found, str):
            return found, grid
    raise unsupported(runnable.config, str(found))


def _images(config: Any) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Sizes of images to try, and their patches: few of them, then the only size that some encoders read."""
    rows, columns = _pair(getattr(config, "patch_size", None) or 16)
    yield (SMALL[0] * rows, SMALL[1] * columns), SMALL
    height, width = _pair(getattr(config, "image_size", None) or 224)
    yield (height, width), (height // rows, width // columns)


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _extra(call: Call) -> str | None:
    names = [name for name, value in call.items() if name not in ("hidden_states", *ENCODER_INPUTS)]
    given = [name for name in names if call[name] is not None and call[name] is not False]
    return f"is also given {', '.join(given)}" if given else None


def _other_attention(module: nn.Module, call: Call) -> str | None:
    mask = call.get("attention_mask")
    hides = isinstance(mask, Tensor) and not (mask.all() if mask.dtype == torch.bool else (mask == 0).all())
    causal = any(getattr(one, "is_causal", False) for one in module.modules())
    return "does not attend to all tokens" if hides or causal else None


def _other_rotation(call: Call, rotation: PatchRotation | None, grid: tuple[int, int]) -> str | None:
    passed = call.get("position_embeddings")
    if passed is None:
        return None
    if rotation is not None and isinstance(passed, tuple) and len(passed) == 2:
        pairs = zip(passed, rotation(grid, call["hidden_states"]), strict=True)
        if all(one.shape == other.shape and torch.equal(one, other) for one, other in pairs):
            return None
    return "is given other positions than the rotary ones of DINOv3"


def _other_tokens(module: nn.Module, call: Call, rotation: PatchRotation | None) -> str | None:
    """Run a layer's own code, without values, on tokens of another number than its encoder's; None: it can.

    Relative positions of patches or windows within a layer show, and whether it uses the positions that it is given.
    """
    hidden = torch.empty(1, LINE[0] * LINE[1], call["hidden_states"].shape[-1], device="meta")
    inputs = dict.fromkeys((name for name in ENCODER_INPUTS if name in call), None)
    watched: tuple[Tensor, ...] = ()
    if call.get("position_embeddings") is not None:
        assert rotation is not None
        inputs["position_embeddings"] = watched = rotation(LINE, hidden)
    try:
        with torch.device("meta"), Uses(watched) as uses:
            out = type(module).forward(module, hidden, **inputs)
    except Exception as error:  # any error of transformers' code
        return f"runs on no other grid than its encoder's (transformers: {' '.join(str(error).split())})"
    out = out[0] if isinstance(out, tuple) else out
    if out.shape != hidden.shape:
        return "does not return a token for a token"
    return "does not use the positions that it is given" if watched and not uses.seen else None
