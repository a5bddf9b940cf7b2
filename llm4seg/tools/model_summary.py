"""Print size and, with --speed, training speed of every backbone, alone and with the LLM block in its bottleneck."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from llm4seg.cluster.gpus import choose_gpus
from llm4seg.config import Config
from llm4seg.config.schema import Model
from llm4seg.llm.store import CONFIG, REMEDY, LayerStore, store_folder
from llm4seg.runtime.device import default_device
from llm4seg.tools.profile_model import STEPS, Cost, Description, describe, training_speed
from llm4seg.utils.errors import InputError, UserError
from llm4seg.utils.logs import add_flags, configure

COLUMNS, SPEED = ("stride", "channels", "tokens", "trained", "frozen", "GFLOPs"), "images/s"


def resized(config: Config, size: Sequence[int] | None, spatial_dims: int | None) -> dict[str, Any]:
    """Overrides for images of `size`: one side stands for all, None for the config's own size."""
    sides = list(size or config.input_size)
    dims = spatial_dims or (len(sides) if len(sides) > 1 else config.data.spatial_dims)
    if len(sides) == 1 or (size is None and len(sides) != dims):
        sides = sides[:1] * dims
    grid = {"data.grid": "resize", "data.size": sides}  # sizes count alone, of images or of patches
    if config.data.intensity == "ct":
        grid["data.intensity"] = "zscore"
    return {"data.spatial_dims": dims, **grid, "training.augment.flip": []}


def candidates(config: Config, chosen: Sequence[str] | None) -> dict[str, dict[str, Any]]:
    """Overrides that choose each backbone, by name: those of `model.backbone`, and presets of a backbone alone."""
    backbones = {name: {"model.backbone": name} for name in Model.sections()}
    presets = {
        name: changes
        for name, changes in config.presets.items()
        if "model.backbone" in changes and all(dotted.startswith("model.") for dotted in changes)
    }
    if wrong := set(chosen or ()) - {*backbones, *presets}:
        raise InputError(f"--backbone: found {wrong.pop()}, allowed: {', '.join({**backbones, **presets})}")
    named = backbones | {f"preset {name}": changes for name, changes in presets.items()}
    return {name: changes for name, changes in named.items() if not chosen or name.removeprefix("preset ") in chosen}


def add_rows(
    table: Table, name: str, config: Config, store: LayerStore | None, channels: tuple[int, int], speed: bool
) -> None:
    """A row for the backbone alone, and one with the LLM block if there is a layer store; measures speed if wanted."""
    alone, block = (config.override({"model.bottleneck": kind}) for kind in ("identity", "llm"))
    description = describe(block if store else alone, store, *channels)
    measured = [f"{training_speed(alone, None, *channels):.1f}"] if speed else []
    table.add_row(escape(name), *cells(description, description.network), *measured)
    if store:
        measured = [f"{training_speed(block, store, *channels):.1f}"] if speed else []
        whole = description.network + description.bottleneck
        table.add_row("  + LLM block", *cells(description, whole), *measured, end_section=True)


def cells(description: Description, cost: Cost) -> list[str]:
    strides = description.strides
    stride = str(strides[0]) if len(set(strides)) == 1 else "x".join(map(str, strides))
    numbers = (description.channels, description.tokens, cost.trained, cost.frozen)
    return [stride, *(f"{number:,}" for number in numbers), f"{cost.flops / 1e9:,.2f}"]


def empty_table(title: str, speed: bool) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("backbone", no_wrap=True)
    for column in (*COLUMNS, *[SPEED] * speed):
        table.add_column(column, justify="right", no_wrap=True)
    return table


def print_table(
    config: Config, chosen: Sequence[str] | None, size: dict[str, Any], channels: tuple[int, int], speed: bool
) -> None:
    """Print the table, and below it the backbones that could not be built and why."""
    sides = " x ".join(map(str, size["data.size"]))
    table = empty_table(f"{sides} images, {channels[0]} in, {channels[1]} out", speed)
    folder, notes = store_folder(config.paths.llm_used, config.model.llm.source), []
    store = LayerStore(folder) if (folder / CONFIG).exists() else None
    for name, changes in candidates(config, chosen).items():
        try:
            add_rows(table, name, config.override(changes | size), store, channels, speed)
        except UserError as error:
            notes.append(f"{name}: {error}")
    notes.append("GFLOPs: a forward pass of one image; a multiply-add counts as two (papers often count one)")
    if speed:
        notes.append(speed_note(config))
    if store is None:
        notes.append(f"without the LLM block: no layer store in {folder}; {REMEDY}")
    console = Console(highlight=False)
    if speed:
        console.width = max(console.width, 96)  # one column more than a terminal of 80 has room for
    console.print(table, "")
    for note in notes:
        console.print(f"[dim]{escape(note)}[/]", soft_wrap=True)


def speed_note(config: Config) -> str:
    """What the column of images/s says, and where it was measured."""
    device, threads = default_device(config.cluster), torch.get_num_threads()
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"the CPU, threads: {threads}"
    return (
        f"{SPEED}: in training, forward and backward pass, in batches of {config.training.batch_size}, "
        f"{config.engine.precision}, the fastest of {STEPS}, on {where}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m llm4seg.tools.model_summary",
        description=__doc__,
        epilog="example: python -m llm4seg.tools.model_summary --size 96 96 96 --backbone cmunext-l --backbone unet",
    )
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="default: %(default)s")
    parser.add_argument("--backbone", action="append", help="a backbone, or a preset that chooses one; default: all")
    parser.add_argument("--size", type=int, nargs="+", help="sides of an image, or one for all; default: data.size")
    parser.add_argument("--spatial-dims", type=int, choices=(2, 3), help="default: as --size has, or data.spatial_dims")
    parser.add_argument("--channels", type=int, default=1, help="of an image; default: %(default)s")
    parser.add_argument("--outputs", type=int, default=2, help="maps of logits; default: %(default)s")
    parser.add_argument(
        "--speed", action="store_true", help="measure images/s in training here, too: minutes for all backbones"
    )
    add_flags(parser)
    arguments = parser.parse_args()
    try:
        configure(arguments.log)
        config = Config.load(arguments.params)
        choose_gpus(config.cluster)
        size = resized(config, arguments.size, arguments.spatial_dims)
        print_table(config, arguments.backbone, size, (arguments.channels, arguments.outputs), arguments.speed)
    except UserError as error:
        sys.exit(f"models: {error}")


if __name__ == "__main__":
    main()
