"""CSV tables, read and checked. pandas is imported where it is used, since that takes a second."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm4seg.utils.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


def records(table: "pd.DataFrame") -> list[dict[str, Any]]:
    """The rows of a table, each by its columns' names; none of a table without columns."""
    rows: list[Any] = table.to_dict("records")
    return rows


def read_table(path: Path, *columns: str, missing: Sequence[str] | None = None) -> "pd.DataFrame":
    """Read a CSV file that must have these columns and a row. `missing`: cells without a value, if not pandas' own.

    Raises InputError naming the file, and the column that is missing.
    """
    import pandas as pd

    try:
        table = pd.read_csv(path, na_values=missing, keep_default_na=missing is None)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run the stage that makes it (`dvc repro`)") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a CSV table: {error}") from None
    absent = [column for column in columns if column not in table]
    if absent or table.empty:
        found = f"no column {absent[0]!r}" if absent else "no row"
        raise InputError(f"{path}: found {found}; the table must have {', '.join(columns)} and at least one row")
    return table
