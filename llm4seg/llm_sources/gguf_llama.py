"""GGUF files of the LLaMA family in transformers' terms: its config, its decoder layers, its names."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llm4seg.llm_sources.gguf_file import Field, GGUFFile
from llm4seg.llm_sources.license import LicenseFile
from llm4seg.llm_sources.storage import Storage
from llm4seg.utils.errors import InputError


@dataclass(frozen=True)
class Architecture:
    """Properties of a GGUF architecture, which has the same name in transformers."""

    rope_pairs: bool  # the rows of q and k that rotate together lie side by side, not half a head apart
    biases: Mapping[str, str]  # transformers' config entries on biases, and the GGUF tensor that has the bias


ARCHITECTURES = {
    "llama": Architecture(rope_pairs=True, biases={"attention_bias": "attn_q", "mlp_bias": "ffn_up"}),
    "qwen2": Architecture(rope_pairs=False, biases={}),  # q, k and v always have one
}
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
HEADS = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}
FINAL_NORM = "output_norm.weight"
ROPE_FACTORS = "rope_freqs.weight"


class GGUFLlama:
    """A checkpoint (see `sources.Checkpoint`) in one GGUF file."""

    def __init__(self, storage: Storage, name: str) -> None:
        self.files = [name]
        self.license_file: LicenseFile | None = None  # set by `sources` where there is one beside the file
        self._file = GGUFFile(storage, name)
        found = str(self._file.fields.get("general.architecture"))
        if found not in ARCHITECTURES:
            allowed = " or ".join(map(repr, ARCHITECTURES))
            raise InputError(f"{self._file.place}: general.architecture: found {found!r}, allowed: {allowed}")
        self._name, self._architecture = found, ARCHITECTURES[found]
        self.config = self._read_config()
        license = self._file.fields.get("general.license")
        self.license = None if license is None else str(license)

    @property
    def names(self) -> Collection[str]:
        """The names of all tensors, as they are in the file."""
        return self._file.tensors.keys()

    def nbytes(self, path: str, keys: Collection[str]) -> int:
        """The number of bytes that `tensors` reads."""
        return sum(self._file.tensors[name].nbytes for name in self._names(path).values() if name in self._file.tensors)

    def tensors(self, path: str, keys: Collection[str]) -> dict[str, Tensor]:
        """The tensors of one module in float32, under transformers' names."""
        names = self._names(path)
        values = self._file.read(names.values())
        tensors = {}
        for name, gguf_name in names.items():
            tensors[name] = torch.from_numpy(self._unpermuted(gguf_name, values.pop(gguf_name)))
        return tensors

    def _names(self, path: str) -> dict[str, str]:
        """The GGUF names of a module's tensors by transformers' names; all that a layer must have, present or not."""
        if path == "norm":
            return {"weight": FINAL_NORM} if FINAL_NORM in self._file.tensors else {}
        prefix = f"blk.{path.removeprefix('layers.')}."
        present = {name.removeprefix(prefix) for name in self._file.tensors if name.startswith(prefix)}
        return {
            self._transformers_name(name): prefix + name
            for name in sorted(present | {f"{short}.weight" for short in NAMES})
        }

    def _transformers_name(self, name: str) -> str:
        short, _, kind = name.partition(".")
        if short not in NAMES:
            raise InputError(f"{self._file.place}: a tensor {name} has no place in a {self._name} layer")
        return f"{NAMES[short]}.{kind}"

    def _unpermuted(self, name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
        heads = HEADS.get(name.split(".")[-2])
        if heads is None or not self._architecture.rope_pairs:
            return values
        if len(values) != (allowed := self.config[heads] * self.config["head_dim"]):
            raise InputError(f"{self._file.place}: {name}: found {len(values)} rows, allowed: {allowed}")
        return rope_halves(values, self.config[heads])

    def _field(self, name: str, default: Field | None = None) -> Any:
        value = self._file.fields.get(f"{self._name}.{name}", default)
        if value is None:
            raise InputError(f"{self._file.place}: the field {self._name}.{name} is missing or a list")
        return value

    def _read_config(self) -> dict[str, Any]:
        heads, hidden = self._field("attention.head_count"), self._field("embedding_length")
        if heads < 1:
            raise InputError(
                f"{self._file.place}: {self._name}.attention.head_count: found {heads}, allowed: 1 or more"
            )
        head_dim = self._field("attention.key_length", hidden // heads)
        self._check_supported(head_dim)
        return {
            "model_type": self._name,
            "hidden_size": hidden,
            "intermediate_size": self._field("feed_forward_length"),
            "num_hidden_layers": self._field("block_count"),
            "num_attention_heads": heads,
            "num_key_value_heads": self._field("attention.head_count_kv", heads),
            "head_dim": head_dim,
            "max_position_embeddings": self._field("context_length"),
            "rms_norm_eps": _shortest(self._field("attention.layer_norm_rms_epsilon")),
            "rope_parameters": self._rope(),
            **{name: f"blk.0.{short}.bias" in self._file.tensors for name, short in self._architecture.biases.items()},
            "vocab_size": self._field("vocab_size", 32000),
        }

    def _check_supported(self, head_dim: int) -> None:
        """Raise InputError for experts, and for rotary positions that are scaled by fields, new or old."""
        values: dict[str, tuple[Field, ...]] = {
            "expert_count": (0,),
            "rope.dimension_count": (head_dim,),
            "rope.scaling.type": ("none",),
            "rope.scaling.attn_factor": (1,),
        }
        if f"{self._name}.rope.scaling.type" not in self._file.fields:  # then llama.cpp scales linearly by one of these
            values |= {"rope.scaling.factor": (1, 0), "rope.scale_linear": (1, 0)}
        for name, allowed in values.items():
            if (found := self._field(name, allowed[0])) not in allowed:
                raise InputError(f"{self._file.place}: {self._name}.{name}: found {found}, allowed: {allowed[0]}")

    def _rope(self) -> dict[str, Any]:
        """The rope_parameters. LLaMA 3's scaled frequencies are a list of divisors here, transformers' longrope."""
        rope = {"rope_type": "default", "rope_theta": _shortest(self._field("rope.freq_base", 10000.0))}
        if ROPE_FACTORS not in self._file.tensors:
            return rope
        factors = [_shortest(value) for value in self._file.read([ROPE_FACTORS])[ROPE_FACTORS]]
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
    """Undo GGUF's order of a head's rows: the two of a rotating pair lie side by side there, half a head apart here."""
    pairs = rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(rows.shape))


def _shortest(value: float) -> float:
    """The shortest decimal that a float32 field stands for: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))
