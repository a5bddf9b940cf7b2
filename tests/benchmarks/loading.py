"""How long one layer of an LLM takes to load, and how much memory: through transformers, and through this project.

Makes a checkpoint of Llama-3.2-1B's shape (16 layers, bf16, 2.5 GB of random weights) in a temporary folder. Each way
runs in processes of its own, and is measured after the imports: once with the checkpoint out of the page cache (cold),
then some times with it in there (warm; the fastest counts). The layer ends as a float32 module, as the network wants
it; "in bf16" ends with the checkpoint's own dtype, every weight read once.
"""

import argparse
import multiprocessing
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

SHAPE = {
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 5e5},
    "max_position_embeddings": 131072,
    "tie_word_embeddings": True,
}
LAYER = 7
MB = 1e6


@dataclass(frozen=True)
class Measured:
    """Seconds and peak memory of one way in one process."""

    seconds: float
    peak: float  # resident, in bytes: of the process
    above: float  # of it, what came on top of the imports


def make_checkpoint(folder: Path) -> None:
    """The checkpoint as `save_pretrained` leaves it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SHAPE), dtype=torch.bfloat16)
    model.to_empty(device="cpu").tie_weights()
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data.uniform_(-0.05, 0.05)
    model.save_pretrained(folder / "llama")


def import_everything() -> None:
    """What any of the ways imports, so that no way pays for it."""
    import torch
    import transformers.models.llama.modeling_llama  # noqa: F401
    from transformers import AutoModel, AutoModelForCausalLM  # noqa: F401

    import llm4seg.llm_sources.build_store
    import llm4seg.models.bottleneck.layers  # noqa: F401

    torch.ones(2).sum()  # starts the threads


def whole_model_float32(folder: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder / "llama", dtype=torch.float32).model.layers[LAYER]


def whole_model_bf16(folder: Path) -> Any:
    """The weights stay mapped from the file until they are used, so that is part of it."""
    from transformers import AutoModelForCausalLM

    layer = AutoModelForCausalLM.from_pretrained(folder / "llama").model.layers[LAYER]
    return layer, [parameter.aminmax() for parameter in layer.parameters()]


def whole_model_mapped(folder: Path) -> Any:
    """Only the layer is brought to float32."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder / "llama").model.layers[LAYER].float()


def source_to_store(folder: Path) -> Any:
    """The stage fetch_llm: into a store that is not there yet. The layer is read, checked, hashed and written."""
    from llm4seg.config.schema import LLMSource
    from llm4seg.llm_sources.build_store import fill_store

    section = LLMSource(source=str(folder / "llama"), sha256=None, layer_sha256={}, layers=(), whole_files=False)
    return fill_store(folder / f"store-{os.getpid()}", section, [LAYER], folder / "cache")


def store_to_module(folder: Path) -> Any:
    """What every training does: out of a filled store, its sha256 verified."""
    from llm4seg.llm.architecture import check_tensors, loaded, meta_model
    from llm4seg.llm.store import LayerStore

    store = LayerStore(folder / "store")
    module, tensors = meta_model(store.config).layers[LAYER], store.load(LAYER)
    check_tensors(module, tensors, "the store")
    return loaded(module, tensors)


def source_to_module(folder: Path) -> Any:
    """Both, in one process."""
    source_to_store(folder)
    (folder / f"store-{os.getpid()}").rename(folder / "store")
    return store_to_module(folder)


THEIRS = "from_pretrained(…, dtype=float32).model.layers[i]"
WAYS: dict[str, Callable[[Path], Any]] = {
    THEIRS: whole_model_float32,
    "from_pretrained(…).model.layers[i], in bf16": whole_model_bf16,
    "from_pretrained(…).model.layers[i].float()": whole_model_mapped,
    "ours: source to a fresh store": source_to_store,
    "ours: filled store to module": store_to_module,
    "ours: source to store to module": source_to_module,
}


def memory(field: str) -> float:
    """Resident memory of this process in bytes: now (VmRSS) or at most (VmHWM)."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def measure(name: str, folder: Path) -> Measured:
    """Run one way, in this process."""
    import_everything()
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
    before, start = memory("VmRSS"), time.perf_counter()
    layer = WAYS[name](folder)
    seconds, peak = time.perf_counter() - start, memory("VmHWM")
    assert layer is not None
    return Measured(seconds, peak, peak - before)


def in_a_process(function: Callable[..., Any], *arguments: Any) -> Any:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def forget(folder: Path) -> None:
    """Take the files out of the page cache."""
    for file in folder.rglob("*.safetensors"):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())  # only what is on disk can be dropped
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def clear(folder: Path, name: str) -> None:
    """Leave the stores that a way needs: one, or none."""
    for store in folder.glob("store*"):
        if store.name != "store" or WAYS[name] is source_to_module:
            for file in store.iterdir():
                file.unlink()
            store.rmdir()


def compare(folder: Path, repeats: int) -> dict[str, tuple[Measured, list[Measured]]]:
    """Every way, once cold and then warm, in turns: what else the machine does meets all of them."""
    in_a_process(source_to_module, folder)
    runs: dict[str, list[Measured]] = {name: [] for name in WAYS}
    for number in range(1 + repeats):
        for name in WAYS:
            clear(folder, name)
            if number == 0:
                forget(folder)
            runs[name].append(in_a_process(measure, name, folder))
    return {name: (cold, warm) for name, (cold, *warm) in runs.items()}


def table(results: dict[str, tuple[Measured, list[Measured]]]) -> Table:
    """Seconds and memory, and how many times less than the whole model in float32 takes."""
    shown = Table(title="one layer of a Llama-3.2-1B checkpoint (60.8 million parameters)")
    shown.add_column("way")
    for heading in ("s, cold", "times", "s, warm", "times", "peak MB", "times", "above imports MB", "times"):
        shown.add_column(heading, justify="right")
    rows = {name: summary(cold, warm) for name, (cold, warm) in results.items()}
    for name, row in rows.items():
        cells = [f"{value:.0f}" if value >= 20 else f"{value:.2f}" for value in row]
        times = [f"{whole / value:.1f}" for whole, value in zip(rows[THEIRS], row, strict=True)]
        shown.add_row(escape(name), *[text for pair in zip(cells, times, strict=True) for text in pair])
    return shown


def summary(cold: Measured, warm: list[Measured]) -> tuple[float, float, float, float]:
    """Seconds cold, and of the fastest warm run; the largest peak memory in MB, in all and above the imports."""
    runs = [cold, *warm]
    return (
        cold.seconds,
        min(run.seconds for run in warm),
        max(run.peak for run in runs) / MB,
        max(run.above for run in runs) / MB,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.loading",
        description=__doc__,
        epilog="example: python -m tests.benchmarks.loading --repeats 5",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--repeats", type=int, default=3, help="warm runs of each way (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where the 2.5 GB go for the time (default: the system's own)")
    arguments = parser.parse_args()
    if not sys.platform.startswith("linux"):
        sys.exit("memory is read from /proc, which only Linux has")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        in_a_process(make_checkpoint, Path(name))
        Console(width=160).print(table(compare(Path(name), arguments.repeats)))


if __name__ == "__main__":
    main()
