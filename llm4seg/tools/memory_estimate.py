"""Print the memory that a training takes on each device, for 1 to 64 workers."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from llm4seg.cluster.gpus import choose_gpus
from llm4seg.config import Config
from llm4seg.config.schema import EngineConfig
from llm4seg.data.patch_size import resolve_auto
from llm4seg.data.prepared import Prepared
from llm4seg.runtime.device import default_device
from llm4seg.tools.memory_model import Sizes, decided, images_per_worker, llm_config, memory_needs, model_sizes
from llm4seg.training.engines.offload import free_memory
from llm4seg.utils.errors import InputError, UserError
from llm4seg.utils.logs import add_flags, configure

WORKERS = (1, 2, 4, 8, 16, 32, 64)
COLUMNS = ("parameters", "gradients", "optimizer", "activations", "device", "host", "nvme")
NOTE = """MB a worker. Activations: what the forward pass keeps, an estimate; memory that kernels borrow comes on top.
(n): training.batch_size cannot be shared out over so many workers; one image each is counted."""


def engines(engine: EngineConfig) -> Iterator[EngineConfig]:
    """All engines: torch, and DeepSpeed with every ZeRO stage and offload."""
    yield engine.model_copy(update={"name": "torch", "offload": "none"})
    for zero, offload in ((0, "none"), (1, "none"), (2, "none"), (3, "none"), (3, "cpu"), (3, "nvme")):
        yield engine.model_copy(update={"name": "deepspeed", "zero": zero, "offload": offload})


def name(engine: EngineConfig) -> str:
    """An engine's display name."""
    if engine.name == "torch":
        return "torch"
    zero = f"ZeRO {engine.zero}" + (f", offload {engine.offload}" if engine.offload != "none" else "")
    return f"auto, {zero}" if engine.name == "auto" else zero


def add(table: Table, config: Config, sizes: Sizes, engine: EngineConfig, workers: int) -> None:
    """Add the row of an engine on a number of workers to a table."""
    images = images_per_worker(config, workers)
    needs = memory_needs(sizes, engine, workers, images or 1)
    count = str(workers) if images else f"({workers})"
    table.add_row(name(engine), count, *(f"{getattr(needs, column) / 1e6:,.1f}" for column in COLUMNS))


def table(title: str) -> Table:
    made = Table(title=title)
    made.add_column("engine")
    for column in ("workers", *COLUMNS):
        made.add_column(column, justify="right")
    return made


def tables(config: Config) -> Iterator[Table]:
    """The config's own engine, then every engine; each on 1 to 64 workers."""
    data = Prepared(config.paths.prepared)
    config = resolve_auto(config, data)
    sizes = model_sizes(config, llm_config(config), data.channels, data.scheme)
    auto = f"; auto goes by what is free here, {free_memory(default_device(config.cluster))}"
    own = table(f"this config ({name(config.engine)}{auto if config.engine.offload == 'auto' else ''})")
    for workers in WORKERS:
        add(own, config, sizes, decided(config, sizes, workers), workers)
    yield own
    every = table("every engine")
    for engine in engines(config.engine):
        for workers in WORKERS:
            add(every, config, sizes, engine, workers)
        every.add_section()
    yield every


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m llm4seg.tools.memory_estimate",
        description=__doc__,
        epilog="example: python -m llm4seg.tools.memory_estimate --set engine.zero=3 --set engine.offload=cpu",
    )
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter; may be repeated")
    add_flags(parser)
    arguments = parser.parse_args()
    try:
        configure(arguments.log)
        config = Config.load(arguments.params).override(_changes(arguments.set))
        choose_gpus(config.cluster)
        for made in tables(config):
            Console().print(made)
    except UserError as error:
        raise SystemExit(f"memory_estimate: {error}") from None
    Console().print(NOTE)


def _changes(pairs: list[str]) -> dict[str, object]:
    """Dotted parameters as a command line gives them, each value read as JSON or as a word."""
    changes: dict[str, object] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"--set: found {pair!r}, allowed: NAME=VALUE")
        try:
            changes[name] = json.loads(value)
        except json.JSONDecodeError:
            changes[name] = value  # a word
    return changes


if __name__ == "__main__":
    main()
