"""Images that are augmented in a second of one core: the default, with each further augmentation alone, and nnU-Net's.

An augmentation is drawn for a share of the images only, so a round is some batches with other random numbers. Rounds of
all ways take turns, and the fastest of each counts. It is the process's own time, so other processes hardly matter.
"""

import argparse
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from llm4seg.config import Config
from llm4seg.config.schema import Augment
from llm4seg.data.augment import augment

SHAPES = {"8 x 1 x 128 x 128": (8, (128, 128)), "4 x 1 x 48 x 48 x 48": (4, (48, 48, 48))}
PARAMS = Path(__file__).parents[2] / "params.yaml"
ELASTIC = 8.0


def ways() -> dict[str, Augment]:
    """The default section; with one more augmentation, at the value of the preset; and the preset."""
    config = Config.load(PARAMS)
    default, preset = config.training.augment, config.preset("augment-nnunet").training.augment
    further = {name: getattr(preset, name) or ELASTIC for name in Augment.model_fields if not getattr(default, name)}
    further = {name: value for name, value in further.items() if name not in ("quarter_turns", "color")}
    alone = {f"default, {name} {value:g}": default.model_copy(update={name: value}) for name, value in further.items()}
    return {"default": default, **alone, "preset augment-nnunet": preset}


def seconds(section: Augment, samples: int, size: tuple[int, ...], batches: int) -> float:
    """The process's time of a round."""
    images, labels = torch.randn(samples, 1, *size), torch.randint(0, 4, (samples, *size))
    start = time.process_time()
    for batch in range(batches):
        order = list(range(batch * samples, (batch + 1) * samples))
        augment(images, labels, order, section, seed=0, epoch=0)
    return time.process_time() - start


def rates(samples: int, size: tuple[int, ...], batches: int, rounds: int) -> dict[str, float]:
    """Images a second of each way."""
    sections = ways()
    for section in sections.values():  # imports, and caches
        seconds(section, samples, size, batches)
    fastest = dict.fromkeys(sections, float("inf"))
    for _ in range(rounds):
        for name, section in sections.items():
            fastest[name] = min(fastest[name], seconds(section, samples, size, batches))
    return {name: samples * batches / value for name, value in fastest.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.augmentation",
        description=__doc__,
        epilog="example: python -m tests.benchmarks.augmentation --rounds 5",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--batches", type=int, default=30, help="in a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of each way (default: %(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    shown = Table(title="images a second of one core")
    shown.add_column("augmentation")
    columns = []
    for title, (samples, size) in SHAPES.items():
        shown.add_column(title, justify="right")
        columns.append(rates(samples, size, arguments.batches, arguments.rounds))
    for name in columns[0]:
        shown.add_row(name, *(f"{column[name]:,.0f}" for column in columns))
    Console(width=100).print(shown)


if __name__ == "__main__":
    main()
