"""The released network as functions of its weights' names, written from the method's description, not from our model.

LLaMA and Qwen2 differ in the biases of q, k and v alone.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from tests.official import official_state

State = Mapping[str, Tensor]


def released_logits(state: State, images: Tensor, heads: int, kv_heads: int, eps: float) -> Tensor:
    """Logits in evaluation mode."""
    features = [stage(state, 1, conv_block(state, "stem.conv.0", "stem.conv.1", images))]
    for number in range(2, 6):
        features.append(stage(state, number, functional.max_pool2d(features[-1], 2)))
    out = features.pop()
    if "llm4seg.adapter1.weight" in state:
        out = llm_block(state, out, heads, kv_heads, eps)
    for number in (5, 4, 3, 2):
        out = fuse(state, number, out, features.pop())
    return conv(state, "Conv_1x1", out)


def conv(state: State, name: str, x: Tensor, **options: int) -> Tensor:
    return functional.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **options)


def norm(state: State, name: str, x: Tensor) -> Tensor:
    parts = [state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
    return functional.batch_norm(x, *parts)


def conv_block(state: State, conv_name: str, norm_name: str, x: Tensor) -> Tensor:
    return norm(state, norm_name, conv(state, conv_name, x, padding=1)).relu()


def activated(state: State, prefix: str, first: int, x: Tensor, **options: int) -> Tensor:
    """A convolution and the norm two places after it, with GELU between."""
    return norm(state, f"{prefix}.{first + 2}", functional.gelu(conv(state, f"{prefix}.{first}", x, **options)))


def stage(state: State, number: int, x: Tensor) -> Tensor:
    block = 0
    while f"encoder{number}.block.{block}.1.weight" in state:
        prefix = f"encoder{number}.block.{block}"
        kernel = state[f"{prefix}.0.fn.0.weight"].shape[-1]
        x = x + activated(state, f"{prefix}.0.fn", 0, x, padding=kernel // 2, groups=x.shape[1])
        x = activated(state, prefix, 4, activated(state, prefix, 1, x))
        block += 1
    return conv_block(state, f"encoder{number}.up.conv.0", f"encoder{number}.up.conv.1", x)


def fuse(state: State, number: int, x: Tensor, skip: Tensor) -> Tensor:
    x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    x = torch.cat([skip, conv_block(state, f"Up{number}.up.1", f"Up{number}.up.2", x)], dim=1)
    prefix = f"Up_conv{number}.conv"
    x = activated(state, prefix, 0, x, padding=1, groups=2)
    return activated(state, prefix, 6, activated(state, prefix, 3, x))


def llm_block(state: State, x: Tensor, heads: int, kv_heads: int, eps: float) -> Tensor:
    tokens = linear(state, "llm4seg.adapter1", x.flatten(2).transpose(1, 2))
    normed = rms_norm(state, "input_layernorm", tokens, eps)
    tokens = tokens + attention(state, normed, heads, kv_heads)
    normed = rms_norm(state, "post_attention_layernorm", tokens, eps)
    gate = functional.silu(linear(state, "llm4seg.llm.mlp.gate_proj", normed))
    tokens = tokens + linear(
        state, "llm4seg.llm.mlp.down_proj", gate * linear(state, "llm4seg.llm.mlp.up_proj", normed)
    )
    return linear(state, "llm4seg.adapter2", tokens).transpose(1, 2).reshape(x.shape)


def linear(state: State, name: str, x: Tensor) -> Tensor:
    return functional.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))


def rms_norm(state: State, name: str, x: Tensor, eps: float) -> Tensor:
    return state[f"llm4seg.llm.{name}.weight"] * x * (x.square().mean(-1, keepdim=True) + eps).rsqrt()


def attention(state: State, x: Tensor, heads: int, kv_heads: int) -> Tensor:
    """Causal, each key shared by several queries; rotated with sin p in the place of cos p, and the reverse."""
    tokens = x.shape[1]
    place = torch.arange(tokens, dtype=x.dtype)[:, None]

    def split(name: str, count: int) -> Tensor:
        return linear(state, f"llm4seg.llm.self_attn.{name}", x).unflatten(-1, (count, -1)).transpose(1, 2)

    def rotated(y: Tensor) -> Tensor:
        left, right = y.chunk(2, dim=-1)
        return y * place.sin() + torch.cat([-right, left], dim=-1) * place.cos()

    query = rotated(split("q_proj", heads))
    key = rotated(split("k_proj", kv_heads)).repeat_interleave(heads // kv_heads, dim=1)
    value = split("v_proj", kv_heads).repeat_interleave(heads // kv_heads, dim=1)
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    later = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
    mixed = scores.masked_fill(later, float("-inf")).softmax(-1) @ value
    return linear(state, "llm4seg.llm.self_attn.o_proj", mixed.transpose(1, 2).flatten(2))


def released_state(layer: State, channels: int = 3, outputs: int = 1) -> dict[str, Tensor]:
    """Weights for a small released network around an LLM layer, drawn so that what the layer does reaches the logits.

    Logits are of order one.
    """
    generator = torch.Generator().manual_seed(0)
    hidden, state = len(layer["input_layernorm.weight"]), {}
    changed = {
        "stem.conv.0.weight": (4, channels, 3, 3),
        "Conv_1x1.weight": (outputs, 4, 1, 1),
        "Conv_1x1.bias": (outputs,),
        "llm4seg.adapter1.weight": (hidden, 32),
        "llm4seg.adapter1.bias": (hidden,),
        "llm4seg.adapter2.weight": (32, hidden),
    }
    for name, tensor in official_state().items():
        values = torch.randn(changed.get(name, tensor.shape), generator=generator)
        if name.endswith("num_batches_tracked"):
            values = torch.tensor(7)
        elif values.ndim > 1:
            values = values * (2 / values[0].numel()) ** 0.5 * (0.1 if name.startswith("Conv_1x1") else 1)
        elif name.endswith(("var", "weight")):
            values = 1 + 0.1 * values.abs()
        else:
            values = 0.1 * values
        state[name] = values
    cnn = {name: tensor for name, tensor in state.items() if not name.startswith("llm4seg.llm.")}
    return cnn | {f"llm4seg.llm.{name}": tensor.float() for name, tensor in layer.items()}
