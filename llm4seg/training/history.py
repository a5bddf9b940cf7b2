"""The history of a training as a CSV table: a row per epoch."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from llm4seg.training.run import Row
from llm4seg.utils.files import replacing
from llm4seg.utils.tables import read_table

COLUMNS = ("epoch", "train_loss", "val_loss", "val_dice", "lr")


def write_history(path: Path, history: Sequence[Row]) -> None:
    """Write the rows that `fit` returns."""
    with replacing(path) as partial:
        pd.DataFrame(history).to_csv(partial, index=False)


def read_history(path: Path) -> pd.DataFrame:
    """Read the table, with COLUMNS. Raises InputError naming the file."""
    return read_table(path, *COLUMNS)
