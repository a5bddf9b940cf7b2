"""Tiny LLMs for tests: real transformers models with random weights, as folders and as GGUF files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from torch import Tensor, nn

from llm4seg.config import Config
from llm4seg.config.schema import LLM, Block, Model
from llm4seg.llm.store import LayerStore
from llm4seg.llm_sources.build_store import fill_store

DEFAULTS = Config.load(Path(__file__).parent.parent / "params.yaml").model
SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 32,
    "pad_token_id": 0,
}


def tiny_llm(kind: str = "llama", seed: int = 0, **changes: Any) -> Any:
    """A transformers model whose every weight, norms included, differs from where its initializer would put it."""
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(seed)
    model = AutoModel.from_config(AutoConfig.for_model(kind, **{**SHAPE, **changes})).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def save_llm(folder: Path, model: Any, **options: Any) -> Path:
    """Write a model's folder by `save_pretrained`."""
    model.save_pretrained(folder, **options)
    return folder


def section(source: Path | str, sha256: str | None = None) -> LLM:
    return LLM(source=str(source), sha256=sha256, layer_sha256={}, layers=(), whole_files=False)


def tiny_store(root: Path, layers: tuple[int, ...] = (1, 2), kind: str = "llama", **changes: Any) -> LayerStore:
    """A filled layer store of a tiny LLM."""
    source = save_llm(root / "source", tiny_llm(kind, **changes))
    return fill_store(root / "store", section(source), layers, root / "cache")


def block_section(**changes: Any) -> Block:
    """The `model.llm` section of params.yaml for a tiny LLM, with changes."""
    values = DEFAULTS.llm.model_dump()
    return Block.model_validate({**values, "layer": 1, **changes})


def model_section(bottleneck: str = "llm", dims: tuple[int, ...] = (4, 6, 8), **block: Any) -> Model:
    """The `model` section with a tiny CMUNeXt."""
    values = DEFAULTS.model_dump()
    shape = {"dims": dims, "depths": (1, 1, 2), "kernels": (3, 3, 5)}
    changes = {"cmunext": shape, "bottleneck": bottleneck, "llm": block_section(**block).model_dump()}
    return Model.model_validate(values | changes)


def rope_pairs(rows: Tensor, heads: int) -> Tensor:
    """The order in which llama.cpp's converter writes the rows of q and k: the two of a rotating pair side by side."""
    head_dim = rows.shape[0] // heads
    order = [
        head * head_dim + half * head_dim // 2 + i
        for head in range(heads)
        for i in range(head_dim // 2)
        for half in (0, 1)
    ]
    return rows[order]


def gguf_tensors(model: Any) -> dict[str, Tensor]:
    """The tensors of a tiny LLaMA or Qwen2 under their GGUF names."""
    names = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    heads = {"attn_q": model.config.num_attention_heads, "attn_k": model.config.num_key_value_heads}
    tensors = {"token_embd.weight": model.embed_tokens.weight}
    for index, layer in enumerate(model.layers):
        for name, value in layer.state_dict().items():
            module, kind = name.rsplit(".", 1)
            short = names[module]
            paired = short in heads and model.config.model_type == "llama"
            tensors[f"blk.{index}.{short}.{kind}"] = rope_pairs(value, heads[short]) if paired else value
    return tensors


def write_gguf(
    path: Path,
    model: Any,
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    architecture: str | None = None,
    tensors: dict[str, Tensor] | None = None,
    **fields: str | float,
) -> Path:
    """A tiny LLaMA or Qwen2 as a GGUF file, its matrices quantized to `kind`, a tokeniser's long arrays before them."""
    config = model.config
    architecture = architecture or config.model_type
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_license("apache-2.0")
    writer.add_token_list([f"token {number}" for number in range(config.vocab_size)])
    writer.add_token_types([1] * config.vocab_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    if "attention__head_count" not in fields:
        writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    for name, value in fields.items():
        add = writer.add_string if isinstance(value, str) else writer.add_uint32
        add(f"{architecture}.{name.replace('__', '.')}", value)
    for name, tensor in (gguf_tensors(model) if tensors is None else tensors).items():
        values = tensor.detach().numpy().astype(np.float32)
        quantized = kind if values.ndim > 1 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quants.quantize(values, quantized), raw_dtype=quantized)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def through_layers(model: Any, tokens: int = 9) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """The inputs and outputs of each layer in a causal forward pass of the complete model, and its output."""
    text = torch.arange(2 * tokens).reshape(2, tokens) % 28 + 3
    return recorded(model.layers, lambda: model(text, use_cache=False)[0])


def recorded(layers: nn.ModuleList, run: Callable[[], Tensor]) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """The inputs and outputs of each layer while `run` runs the complete model, and what that returns."""
    inputs: dict[int, Tensor] = {}
    outputs: dict[int, Tensor] = {}

    def note(number: int) -> Any:
        def hook(layer: nn.Module, positional: tuple[Tensor, ...], named: dict[str, Tensor], out: Any) -> None:
            inputs[number] = (positional[0] if positional else named["hidden_states"]).clone()
            outputs[number] = (out[0] if isinstance(out, tuple) else out).clone()

        return hook

    hooks = [layer.register_forward_hook(note(n), with_kwargs=True) for n, layer in enumerate(layers)]
    with torch.no_grad():
        last = run()
    for hook in hooks:
        hook.remove()
    numbers = range(len(layers))
    return [inputs[number] for number in numbers], [outputs[number] for number in numbers], last
