"""What the tests of LLM sources have in common: where an LLM is served, and what fetching it should give."""

import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from llm4seg.llm.store import LayerStore
from llm4seg.llm_sources.build_store import fill_store
from tests.import_graph import ROOT
from tests.servers import CountingProxy
from tests.tiny_llm import section, tiny_llm

LAYER = 2
MB = 1 << 20


@dataclass
class Served:
    """A place from which an LLM is served, by way of a proxy that counts."""

    base: str  # of llm.source
    proxy: CountingProxy
    put: Callable[[Path, str], None]  # a file to a path there

    def folder(self, folder: Path, name: str = "llm") -> str:
        for file in folder.iterdir():
            self.put(file, f"{name}/{file.name}")
        return f"{self.base}/{name}"


def copy(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, target)


def fill(root: Path, source: str, layers: tuple[int, ...] = (LAYER,), **llm: Any) -> LayerStore:
    wanted = section(source).model_copy(update=llm)
    return fill_store(root / "store", wanted, layers, root / "cache")


def assert_is_layer(store: LayerStore, llama: Any, layer: int = LAYER) -> None:
    expected = llama.layers[layer].state_dict()
    found = store.load(layer)
    assert found.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


def header_bytes(file: Path) -> int:
    with file.open("rb") as opened:
        return 8 + int(struct.unpack("<Q", opened.read(8))[0])


def module_bytes(*modules: Any) -> int:
    return sum(tensor.nbytes for module in modules for tensor in module.state_dict().values())


def tiny_like(llama: Any, seed: int) -> Any:
    names = ("hidden_size", "intermediate_size", "num_attention_heads", "head_dim", "num_key_value_heads", "vocab_size")
    return tiny_llm(seed=seed, **{name: getattr(llama.config, name) for name in names}).bfloat16()


def write_params(folder: Path, **llm: object) -> None:
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["llm"].update(llm)
    values["model"]["llm"]["layer"] = LAYER
    values["model"]["bottleneck"] = "identity"  # the stage does not read it
    values["search"].update(trials=0, space={})
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
