"""The ways to train that are compared, by name: what each is, and what of the config it changes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from llm4seg.config.schema import EngineConfig

# glibc's allocator keeps memory that a step has freed for the next one, in huge pages
MEMORY = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "THP_MEM_ALLOC_ENABLE": "1",
    "MALLOC_TRIM_THRESHOLD_": "2000000000",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TOP_PAD_": "67108864",
}


@dataclass(frozen=True)
class Way:
    """A way to train: the loop that it runs, the config's changes, and what must be there for it."""

    label: str
    loop: str = "ours"  # ours | naive | monai
    changes: dict[str, Any] = field(default_factory=dict)
    metrics: bool = True  # of each step, in NumPy, of the naive loop
    package: str | None = None
    parameter: str | None = None  # of `engine`, which versions before it have not
    cuda: bool = False  # differs from another way on CUDA alone


TORCH, DEEPSPEED = {"engine.name": "torch"}, {"engine.name": "deepspeed", "engine.zero": 1}
BF16, EAGER = {"engine.precision": "bf16"}, {"engine.graph": "off"}
WAYS = {
    "naive": Way("naive loop", "naive"),
    "naive-bare": Way("naive loop, no metrics", "naive", metrics=False),
    "monai": Way("MONAI loop", "monai", package="monai"),
    "ours": Way("fit, fp32", changes=TORCH),
    "ours-eager": Way("fit, fp32, graph off", changes=TORCH | EAGER, parameter="graph", cuda=True),
    "ours-any-order": Way(
        "fit, fp32, not deterministic",
        changes=TORCH | {"engine.deterministic": False},
        parameter="deterministic",
        cuda=True,
    ),
    "ours-bf16": Way("fit, bf16", changes=TORCH | BF16),
    "ours-bf16-eager": Way("fit, bf16, graph off", changes=TORCH | BF16 | EAGER, parameter="graph", cuda=True),
    "deepspeed": Way("fit, DeepSpeed ZeRO 1", changes=DEEPSPEED, package="deepspeed"),
}
BASE = "naive"  # what the others are compared with, or the first of the chosen ones


def available(chosen: Sequence[str] | None, device: str) -> tuple[list[str], list[str]]:
    """The ways to run, and a line for each chosen one that this machine or version cannot."""
    names, notes = [], []
    for name, way in WAYS.items():
        if chosen and name not in chosen:
            continue
        if reason := lacking(way, device):
            notes.append(f"{name}: left out: {reason}")
        else:
            names.append(name)
    return names, notes


def lacking(way: Way, device: str) -> str | None:
    """Why a way cannot be run."""
    if way.cuda and device != "cuda":
        return "on CUDA only"
    if way.package and find_spec(way.package) is None:
        return f"{way.package} is not installed"
    if way.parameter and way.parameter not in EngineConfig.model_fields:
        return f"there is no engine.{way.parameter}"
    return None


def environment(way: Way, memory: str, threads: int) -> dict[str, str]:
    """What a way's process has in its environment.

    `memory`: ours, the allocator's settings for every way; default, for none; own, for those of this project.
    """
    settings = MEMORY if memory == "ours" or (memory == "own" and way.loop == "ours") else {}
    return {"OMP_NUM_THREADS": str(threads), **settings}
