"""best.json: the overrides of a search's best trial, written by `search`, applied by `train` and `study`."""

from pathlib import Path

from llm4seg.config.earlier import current
from llm4seg.config.schema import Overrides
from llm4seg.utils.files import read_json, write_json

BEST = "best.json"


def write_best(folder: Path, best: Overrides) -> None:
    """Write best.json to a folder; empty where no search was made."""
    write_json(folder / BEST, best)


def read_best(folder: Path) -> Overrides:
    """Read best.json. Raises InputError naming the file when it is missing or broken."""
    best: Overrides = current(read_json(folder / BEST))
    return best
