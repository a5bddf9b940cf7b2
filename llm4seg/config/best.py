"""The overrides that a search found (best.json): written by `search`, applied by `train` and `study`."""

from pathlib import Path

from llm4seg.config.earlier import current
from llm4seg.config.schema import Overrides
from llm4seg.utils.files import read_json, write_json

BEST = "best.json"


def write_best(folder: Path, best: Overrides) -> None:
    """Write the best trial's overrides; none where there was no search."""
    write_json(folder / BEST, best)


def read_best(folder: Path) -> Overrides:
    """Read them back. Raises InputError naming the file when it is missing or broken."""
    best: Overrides = current(read_json(folder / BEST))
    return best
