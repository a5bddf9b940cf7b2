"""The live history of a training: a folder with a CSV that grows by a row an epoch, and pictures."""

import csv
import math
import os
from collections.abc import Sequence
from pathlib import Path

from llm4seg.training.run import Row
from llm4seg.utils.files import replacing

FILE = "history.csv"


class LiveHistory:
    """A CSV of `columns`, in which each epoch stands once; what an epoch has not, is an empty cell.

    What an earlier process wrote stays, but for a last line that it did not finish.
    """

    def __init__(self, folder: Path, columns: Sequence[str]) -> None:
        self._path, self._columns = folder / FILE, columns
        rows = self._read()
        self.epochs = int(rows[-1]["epoch"]) if rows else 0
        with replacing(self._path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)

    def _read(self) -> list[dict[str, str]]:
        if not self._path.exists():
            return []
        text = self._path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        return [row for row in csv.DictReader(whole.splitlines()) if [*row] == [*self._columns]]

    def append(self, row: Row) -> None:
        """Write the row of the epoch after the last one; on the disk when this returns."""
        cells = {name: "" if math.isnan(value) else value for name, value in row.items()}
        with self._path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns, extrasaction="ignore").writerow(cells | {"epoch": int(row["epoch"])})
            file.flush()
            os.fsync(file.fileno())
        self.epochs = int(row["epoch"])
