"""Rotary positions and attention masks over a feature map's grid."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from llm4seg.llm.encoder import PatchRotation
from llm4seg.llm.layer_inputs import causal_mask

Rotation = tuple[Tensor, Tensor]  # the cosines and sines that rotate queries and keys, each (1, T, rotated)
RotaryAt = Callable[[Tensor], Rotation]  # the LLM's rotation of positions (1, T)


def attention_mask(tokens: int, attention: str, window: int | None, like: Tensor) -> Tensor:
    """The additive attention mask (1, 1, T, T): 0 where a token may attend, minus infinity elsewhere.

    `causal` has the LLM's sliding window of `window` tokens, where it has one; `bidirectional` is zero everywhere.
    Without a mask transformers' `sdpa` is causal, unless the layer is told otherwise (see `attend_both_ways`), and its
    `eager` attention is not.
    """
    if attention == "bidirectional":
        # an expanded row takes next to no memory, and CUDA's kernels need it contiguous
        return like.new_zeros(1, 1, 1, tokens).expand(1, 1, tokens, tokens)
    return causal_mask(tokens, window, like)


def attend_both_ways(layers: nn.ModuleList) -> bool:
    """Set LLM layers to attend to all tokens where they get no mask; returns whether every layer can do without one.

    transformers' attention functions read `is_causal` of the attention module. The `indexer` of sparse attention, as in
    DeepSeek V3.2, reads the mask itself.
    """
    attention = [[module for module in layer.modules() if hasattr(module, "is_causal")] for layer in layers]
    for module in (module for modules in attention for module in modules):
        module.is_causal = False  # type: ignore[assignment]  # an attribute of transformers' modules, no tensor
    names = (name.rpartition(".")[2] for name, _ in layers.named_modules())
    return all(attention) and "indexer" not in names


def rotation(position: str, rotary_at: RotaryAt, grid: Sequence[int], device: torch.device) -> Rotation:
    """The rotary embedding of `model.llm.position` for a grid's tokens in raster order.

    `native`: the LLM's own, of the raster index. `axial`: the LLM's frequencies divided among the axes, see `axial`.
    `released`: as in the released code, which passes (sin p, cos p) of the raster index p instead of (cos, sin):
    relative attention with a single frequency of -1 rad per token. `none`: all at position 0, so not rotated; an LLM's
    scaling of attention, such as yarn's, stays.
    """
    if position == "axial":
        return axial(rotary_at, grid, device)
    index = torch.arange(torch.Size(grid).numel(), device=device)[None]
    cos, sin = rotary_at(index)
    match position:
        case "released":
            angle = index[:, :, None].expand_as(cos)
            return angle.sin().to(cos), angle.cos().to(cos)
        case "none":
            return rotary_at(torch.zeros_like(index))
        case _:
            return cos, sin


def grid_rotation(position: str, rotary: PatchRotation, grid: Sequence[int], like: Tensor) -> Rotation:
    """A vision transformer's rotary embedding of a grid's tokens, each (T, rotated).

    `native`: its own. `none`: that of a single patch, which rotates nothing.
    """
    if position == "none":
        cos, sin = rotary((1, 1), like)
        tokens = torch.Size(grid).numel()
        return cos.expand(tokens, -1), sin.expand(tokens, -1)
    return rotary(grid, like)


def axial(rotary_at: RotaryAt, grid: Sequence[int], device: torch.device) -> Rotation:
    """Rotate by the coordinate along one axis for each frequency: sorted, frequencies go to the axes in turn.

    Each axis thus gets fast and slow frequencies. Which dimensions of a head share a frequency is read off the LLM's
    rotation of position 1, so it does not matter whether they lie side by side or half a head apart.
    """
    coordinates = torch.meshgrid(*(torch.arange(side, device=device) for side in grid), indexing="ij")
    by_axis = [rotary_at(along.reshape(1, -1)) for along in coordinates]
    cos, sin = rotary_at(torch.ones(1, 1, dtype=torch.long, device=device))
    frequency = torch.unique(torch.atan2(sin.float(), cos.float()), return_inverse=True)[1].reshape(-1)
    axis_of = (frequency % len(by_axis)).expand_as(by_axis[0][0])[None]
    return _pick([cos for cos, _ in by_axis], axis_of), _pick([sin for _, sin in by_axis], axis_of)


def _pick(by_axis: Sequence[Tensor], axis_of: Tensor) -> Tensor:
    """Of a tensor per axis, each entry from the axis in `axis_of` (1, 1, T, rotated)."""
    return torch.stack(list(by_axis)).gather(0, axis_of)[0]
