"""How large checkpoints are, and how large they would be with the frozen LLM layer inside.

With a randomly initialized layer of Llama-3.2-1B's shape in two networks: the default one, and CMUNeXt at its
published size. The layer counts once, in float32; a checkpoint that holds the best weights too, as ours does, would
have it twice. "weights": the file to leave behind; "checkpoint": all that a run goes on from (current weights, the
optimizer's two slots of each, and the best weights so far).
"""

import tempfile
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from llm4seg.config import Config
from llm4seg.data.prepared import Prepared
from llm4seg.llm.store import CONFIG
from llm4seg.models import Hybrid
from llm4seg.models.hybrid import LLM
from llm4seg.models.saved import WEIGHTS
from llm4seg.training.checkpoint import Checkpoint, Progress
from llm4seg.training.engines import build_engine
from llm4seg.training.run import LocalRun, start_group_of_one
from llm4seg.training.trainer import assemble
from llm4seg.utils.files import write_json
from tests.benchmarks.block import LLAMA
from tests.benchmarks.default import default_config, parser, run

WANTED = 0.1


def llama_config(config: Config, folder: Path) -> Config:
    """The config with a layer of Llama-3.2-1B's shape."""
    described = {"source": "shape", "revision": None, "licence": None, "sha256": "", "layers": {}, "norm": None}
    write_json(folder / CONFIG, described | {"architecture": LLAMA})
    return config.override({"paths.llm_used": str(folder), "model.llm.layer": 7, "model.llm.weights": "random"})


def after_a_step(config: Config, data: Prepared, folder: Path) -> tuple[Hybrid, Checkpoint]:
    """A model, and its checkpoint after one optimizer step, when the optimizer has its slots."""
    model, alone = assemble(config, data), LocalRun(folder)
    engine = build_engine(model, config, 10, alone)
    engine.train(True)
    engine.backward(engine(torch.randn(2, data.channels, *data.size)).square().mean())
    engine.update()
    engine.advance()
    optimizer, schedule = engine.state()
    return model, Checkpoint(
        Progress(schedule=schedule), engine.trainable_state_dict(), optimizer, engine.trainable_state_dict()
    )


def add_row(table: Table, name: str, config: Config, data: Prepared, folder: Path) -> None:
    model, checkpoint = after_a_step(config, data, folder)
    checkpoint.write(folder)
    layer = sum(one.nbytes for name, one in model.state_dict().items() if name.startswith(LLM))
    cells: list[str] = []
    for size in (folder / WEIGHTS).stat().st_size, sum(file.stat().st_size for file in folder.iterdir()):
        cells += [f"{size / 1e6:.1f}", f"{(size + layer) / 1e6:.1f}", f"{size / (size + layer):.3f}"]
    table.add_row(name, *cells)


def benchmark() -> None:
    config = default_config()
    table = Table(title=f"MB, without and with a Llama-3.2-1B layer inside (wanted: at most {WANTED})")
    table.add_column("network")
    for column in ("weights", "with the layer", "share", "checkpoint", "with the layer", "share"):
        table.add_column(column, justify="right")
    start_group_of_one(torch.device("cpu"))
    with tempfile.TemporaryDirectory() as name:
        data = Prepared(config.paths.prepared)
        llama = llama_config(config, Path(name))
        for label, changed in (("default", llama), ("CMUNeXt as published", llama.preset("cmunext"))):
            folder = Path(name) / label
            folder.mkdir()
            add_row(table, label, changed, data, folder)
    Console(width=110).print(table)


def main() -> None:
    parser("checkpoints", __doc__).parse_args()
    run(benchmark)


if __name__ == "__main__":
    main()
