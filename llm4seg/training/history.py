"""The history of a training: a row per epoch, when it is complete, and the CSV table.

pandas is imported where it is used, since that takes a second.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llm4seg.config.schema import Training
from llm4seg.training.run import Row
from llm4seg.utils.files import replacing
from llm4seg.utils.tables import read_table

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("epoch", "train_loss", "val_loss", "val_dice", "lr")


def is_validated(epoch: int, section: Training) -> bool:
    """Whether an epoch, counted from 1, has a validation: by `training.validate_every`, and the last one always."""
    return epoch % section.validate_every == 0 or epoch == section.epochs


def epochs_since_best(history: Sequence[Row]) -> int:
    """The number of epochs since the first one with the best validation Dice, of those that have one."""
    dice = [row.get("val_dice", -math.inf) for row in history]
    return len(dice) - 1 - dice.index(max(dice))


def is_complete(history: Sequence[Row], section: Training) -> bool:
    """Whether no epoch is left: all are over, or the last `training.patience` epochs brought no better validation Dice.

    The latter is decided at epochs with a validation alone. It follows from the history, so that a resumed training
    stops where an uninterrupted one does.
    """
    if len(history) == section.epochs:
        return True
    if section.patience is None or not history or "val_dice" not in history[-1]:
        return False
    return epochs_since_best(history) >= section.patience


def write_history(path: Path, history: Sequence[Row]) -> None:
    """Write the rows that `fit` returns; what an epoch without a validation has not, is an empty cell."""
    import pandas as pd

    columns = dict.fromkeys([*COLUMNS, *(name for row in history for name in row)])
    with replacing(path) as partial:
        pd.DataFrame(history, columns=[*columns]).to_csv(partial, index=False)


def read_history(path: Path) -> "pd.DataFrame":
    """Read the table, with COLUMNS. Raises InputError naming the file."""
    return read_table(path, *COLUMNS)
