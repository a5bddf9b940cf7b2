"""The history of a training: a row per epoch, when it is complete, and the CSV table."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from llm4seg.config.schema import Training
from llm4seg.training.run import Row
from llm4seg.utils.files import replacing
from llm4seg.utils.tables import read_table

COLUMNS = ("epoch", "train_loss", "val_loss", "val_dice", "lr")


def epochs_since_best(history: Sequence[Row]) -> int:
    """The number of epochs since the first one with the best validation Dice."""
    dice = [row["val_dice"] for row in history]
    return len(dice) - 1 - dice.index(max(dice))


def is_complete(history: Sequence[Row], section: Training) -> bool:
    """Whether no epoch is left: all are over, or the last `training.patience` epochs brought no better validation Dice.

    It follows from the history alone, so that a resumed training stops where an uninterrupted one does.
    """
    if len(history) == section.epochs:
        return True
    return bool(history) and section.patience is not None and epochs_since_best(history) >= section.patience


def write_history(path: Path, history: Sequence[Row]) -> None:
    """Write the rows that `fit` returns."""
    with replacing(path) as partial:
        pd.DataFrame(history).to_csv(partial, index=False)


def read_history(path: Path) -> pd.DataFrame:
    """Read the table, with COLUMNS. Raises InputError naming the file."""
    return read_table(path, *COLUMNS)
