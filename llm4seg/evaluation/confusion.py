"""Confusion of classes: of each class's pixels in the reference, the shares that are predicted as each class."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from llm4seg.data.label_scheme import IGNORE, LabelScheme

CONFUSION = "confusion.csv"
ROWS = 100  # of a class in the table
BACKGROUND = "background"


class Confusion:
    """Pixels by reference (rows) and prediction (columns), background first, added up over cases.

    Of overlapping regions, a pixel counts as the last one that it belongs to; ignored pixels do not count.
    """

    def __init__(self, scheme: LabelScheme) -> None:
        self._scheme = scheme
        self.names = [BACKGROUND, *scheme.classes]
        self.pixels = np.zeros((len(self.names),) * 2, np.int64)

    def add(self, predicted_S: Tensor, labels_S: Tensor) -> None:
        """Add a case: labels of the scheme, of equal shape."""
        count = len(self.names)
        keep_S = self._kept(labels_S)
        # a row at a time: of a whole volume, pairs of 8 bytes are several times its labels
        for predicted, labels, keep in zip(predicted_S.cpu().numpy(), labels_S.numpy(), keep_S, strict=True):
            pairs = self._scheme.drawn(labels)[keep].astype(np.int64) * count + self._scheme.drawn(predicted)[keep]
            self.pixels += np.bincount(pairs, minlength=count**2).reshape(count, count)

    def _kept(self, labels_S: Tensor) -> np.ndarray:
        labels = labels_S.numpy()
        return labels != IGNORE if self._scheme.ignore else np.ones(labels.shape, bool)

    def table(self) -> pd.DataFrame:
        """ROWS rows for each class that occurs, `reference` and `predicted`: a row is a hundredth of its pixels.

        The form in which DVC's templates count rows. Shares are rounded by largest remainders.
        """
        rows = []
        for name, pixels in zip(self.names, self.pixels, strict=True):
            for other, count in zip(self.names, hundredths(pixels), strict=True):
                rows += [(name, other)] * count
        return pd.DataFrame(rows, columns=["reference", "predicted"])

    def write(self, folder: Path) -> None:
        """Write the table."""
        self.table().to_csv(folder / CONFUSION, index=False)


def hundredths(counts: Sequence[int] | np.ndarray) -> list[int]:
    """Whole numbers in the proportion of counts, ROWS together; zeros where all counts are."""
    counts = np.asarray(counts, np.int64)
    if not counts.sum():
        return [0] * len(counts)
    exact = counts * ROWS / counts.sum()
    whole = np.floor(exact).astype(int)
    most = np.argsort(whole - exact, kind="stable")[: ROWS - whole.sum()]
    whole[most] += 1
    return [int(number) for number in whole]
