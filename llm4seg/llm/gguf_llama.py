"""A GGUF file of the `llama` architecture as transformers' LLaMA: its config, its decoder layers, its names."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llm4seg.errors import InputError
from llm4seg.llm.gguf_file import Field, GGUFFile

ARCHITECTURE = "llama"
NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
FINAL_NORM = "output_norm.weight"
ROPE_FACTORS = "rope_freqs.weight"


class GGUFLlama:
    """A checkpoint (see `sources.Checkpoint`) in one GGUF file."""

    def __init__(self, path: Path) -> None:
        self._file = GGUFFile(path)
        found = self._file.fields.get("general.architecture")
        if found != ARCHITECTURE:
            raise InputError(f"{path}: general.architecture: found {found!r}, allowed: {ARCHITECTURE!r}")
        self.config = self._read_config()
        licence = self._file.fields.get("general.license")
        self.licence = None if licence is None else str(licence)

    def tensors(self, path: str, keys: Collection[str]) -> dict[str, Tensor]:
        """The tensors of one module in float32, under transformers' names."""
        if path == "norm":
            return {"weight": torch.from_numpy(self._file.read(FINAL_NORM))} if FINAL_NORM in self._file.tensors else {}
        prefix = f"blk.{path.removeprefix('layers.')}."
        present = {name.removeprefix(prefix) for name in self._file.tensors if name.startswith(prefix)}
        needed = {f"{short}.weight" for short in NAMES}
        return {self._renamed(name): self._read(prefix, name) for name in sorted(present | needed)}

    def _renamed(self, name: str) -> str:
        short, _, kind = name.partition(".")
        if short not in NAMES:
            raise InputError(f"{self._file.path}: a tensor {name} has no place in a {ARCHITECTURE} layer")
        return f"{NAMES[short]}.{kind}"

    def _read(self, prefix: str, name: str) -> Tensor:
        values = self._file.read(prefix + name)
        heads = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}.get(name.split(".")[0])
        if heads is None:
            return torch.from_numpy(values)
        if len(values) != (allowed := self.config[heads] * self.config["head_dim"]):
            raise InputError(f"{self._file.path}: {prefix}{name}: found {len(values)} rows, allowed: {allowed}")
        return torch.from_numpy(rope_halves(values, self.config[heads]))

    def _field(self, name: str, default: Field | None = None) -> Any:
        value = self._file.fields.get(f"{ARCHITECTURE}.{name}", default)
        if value is None:
            raise InputError(f"{self._file.path}: the field {ARCHITECTURE}.{name} is missing or a list")
        return value

    def _read_config(self) -> dict[str, Any]:
        heads, hidden = self._field("attention.head_count"), self._field("embedding_length")
        if heads < 1:
            raise InputError(
                f"{self._file.path}: {ARCHITECTURE}.attention.head_count: found {heads}, allowed: 1 or more"
            )
        head_dim = self._field("attention.key_length", hidden // heads)
        for name, allowed in {"expert_count": 0, "rope.dimension_count": head_dim, "rope.scaling.type": "none"}.items():
            if (found := self._field(name, allowed)) != allowed:
                raise InputError(f"{self._file.path}: {ARCHITECTURE}.{name}: found {found}, allowed: {allowed}")
        return {
            "model_type": "llama",
            "hidden_size": hidden,
            "intermediate_size": self._field("feed_forward_length"),
            "num_hidden_layers": self._field("block_count"),
            "num_attention_heads": heads,
            "num_key_value_heads": self._field("attention.head_count_kv", heads),
            "head_dim": head_dim,
            "max_position_embeddings": self._field("context_length"),
            "rms_norm_eps": _shortest(self._field("attention.layer_norm_rms_epsilon")),
            "rope_parameters": self._rope(),
            "attention_bias": "blk.0.attn_q.bias" in self._file.tensors,
            "mlp_bias": "blk.0.ffn_up.bias" in self._file.tensors,
            "vocab_size": self._field("vocab_size", 32000),
        }

    def _rope(self) -> dict[str, Any]:
        """LLaMA 3's stretched frequencies are a list of divisors here, which transformers calls longrope."""
        rope = {"rope_type": "default", "rope_theta": _shortest(self._field("rope.freq_base", 10000.0))}
        if ROPE_FACTORS not in self._file.tensors:
            return rope
        factors = [_shortest(value) for value in self._file.read(ROPE_FACTORS)]
        lengths = {"factor": 1.0, "original_max_position_embeddings": self._field("context_length")}
        return (
            rope
            | lengths
            | {
                "rope_type": "longrope",
                "attention_factor": 1.0,
                "short_factor": factors,
                "long_factor": factors,
            }
        )


def rope_halves(rows: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Undo GGUF's order of a head's rows: pairs that rotate together lie side by side there, half a head apart here."""
    pairs = rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(rows.shape))


def _shortest(value: float) -> float:
    """The shortest decimal that a float32 field stands for: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))
