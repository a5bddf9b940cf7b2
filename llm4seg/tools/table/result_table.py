"""The table itself: methods by data sets, with the texts of its cells and of its legend."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from llm4seg.config import Config
from llm4seg.study.over_data import WILCOXON, verdict_over_data
from llm4seg.study.verdict import METRICS, known
from llm4seg.tools.table.cells import cautions, compared_cells, over_data
from llm4seg.tools.table.published import Published, published
from llm4seg.tools.table.scores import Scores
from llm4seg.utils.errors import InputError
from llm4seg.utils.tables import records

MISSING, OVER = "-", "over data sets"


@dataclass(frozen=True)
class Cell:
    """What a cell shows: a mean, and a difference below it ("" for none); `bold`: best for certain."""

    mean: str
    difference: str = ""
    bold: bool = False


@dataclass(frozen=True)
class ResultTable:
    """`cells`: a row per method and data set, of `compared_cells`; `over`: one per method, of `compare_over_data`."""

    metric: str
    per: str
    confidence: float
    reference: str
    cells: pd.DataFrame
    over: pd.DataFrame
    published: Sequence[Published]
    cautions: Sequence[str]

    @property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(self.cells["arm"]))

    @property
    def data_sets(self) -> list[str]:
        return list(dict.fromkeys(self.cells["data"]))

    @property
    def headings(self) -> list[str]:
        """Our data sets, OVER where methods are compared over them, then what has published scores alone."""
        others = dict.fromkeys(one.data for one in self.published if one.data not in self.data_sets)
        return [*self.data_sets, *([OVER] if len(self.over) else []), *others]

    @property
    def rows(self) -> dict[str, list[Cell]]:
        """The cells of each method in the order of `headings`."""
        cells = {(row["arm"], row["data"]): self._cell(row) for row in records(self.cells)}
        cells |= {(row["arm"], OVER): self._over_cell(row) for row in records(self.over)}
        return {
            method: [cells.get((method, data), Cell("" if data == OVER else MISSING)) for data in self.headings]
            for method in self.methods
        }

    def published_rows(self) -> dict[str, list[str]]:
        """The published scores of each method, with a letter for where they come from, in the order of `headings`."""
        rows: dict[str, list[str]] = {}
        for one in self.published:
            texts = rows.setdefault(one.method, ["" if data == OVER else MISSING for data in self.headings])
            texts[self.headings.index(one.data)] = f"{one.digits} [{self._letter(one.source)}]"
        return rows

    def _letter(self, source: str) -> str:
        return "abcdefghij"[list(dict.fromkeys(one.source for one in self.published)).index(source)]

    def _cell(self, row: Mapping[str, Any]) -> Cell:
        if not known(row["mean"]):
            return Cell(MISSING)
        spread = f" ± {100 * row['std']:.1f}" if known(row["std"]) else ""
        difference = _difference(row, self._differs(row)) if known(row.get("difference")) else ""
        return Cell(f"{100 * row['mean']:.1f}{spread}", difference, bool(row["best"]))

    def _over_cell(self, row: Mapping[str, Any]) -> Cell:
        if row["method"] == WILCOXON:
            p = f", p {row['p']:.2g}" if known(row["p"]) else ""
            return Cell("", f"{100 * row['difference']:+z.1f}{p}{'*' if self._differs(row) else ''}")
        return Cell("", _difference(row, self._differs(row)))

    def _differs(self, row: Mapping[str, Any]) -> bool:
        """Whether a method differs from the reference for certain; a comparison with NaN is False."""
        return known(row["p_holm"]) and row["p_holm"] < 1 - self.confidence

    def legend(self) -> list[str]:
        """What the cells are, a sentence a line; then what was found over data sets, cautions, and published scores."""
        level, score = f"{self.confidence:.0%}".replace("%", " %"), "volumes" if self.per == "volume" else "cases"
        runs = sorted({int(count) for count in self.cells["runs"]})
        many = str(runs[0]) if len(runs) == 1 else f"{runs[0]} to {runs[-1]}"
        lines = [
            f"{METRICS[self.metric]}, points: mean ± standard deviation over runs ({many} a cell: seeds, folds), each "
            f"run's the mean over its {score}; below, the paired difference from {self.reference} [{level} interval].",
            f"*: differs from {self.reference} after Holm's correction over the methods. Bold: better than every other "
            "method, after Holm's correction over all pairs of methods of the data set.",
        ]
        if "reason" in self.cells and self.cells["reason"].isin(["runs", "units"]).any():
            lines.append("†: too few runs or cases for a test; the interval takes the trained networks as given.")
        lines += [verdict_over_data(row, self.metric, self.confidence) for row in records(self.over)]
        lines += self.cautions
        return [*lines, *self._published_legend()]

    def _published_legend(self) -> list[str]:
        """Of each source of published scores what they are, and whether ours are alike."""
        lines = {
            f"[{self._letter(one.source)}] published: {one.source}{' (second-hand)' if one.second_hand else ''}; "
            f"{one.protocol}. The same protocol as ours: {one.same_protocol}. The same split: {one.same_split}.": None
            for one in self.published
        }
        return list(lines)


def _difference(row: Mapping[str, Any], differs: bool) -> str:
    """The difference in points with its interval, and the marks that the legend explains."""
    ends = f" [{100 * row['low']:z.1f}, {100 * row['high']:z.1f}]" if known(row["low"]) else ""
    mark = "*" if differs else "†" if row["reason"] in ("runs", "units") else ""
    return f"{100 * row['difference']:+z.1f}{ends}{mark}"


def build_table(scores: Scores, config: Config, reference: str | None, with_published: bool) -> ResultTable:
    """The table of all scores; `reference`: None for that of the first study, else the first method.

    Raises InputError for a reference that is no method.
    """
    methods = list(dict.fromkeys(scores.rows["arm"]))
    reference = reference or scores.reference or methods[0]
    if reference not in methods:
        raise InputError(f"--reference: found {reference}, allowed: {', '.join(methods)}")
    chosen: dict[str, Any] = {
        "metric": scores.metric,
        "per": scores.per,
        "arms": {name: {} for name in methods},
        "only": None,
        "references": (reference,),
    }
    study, section = config.study.model_copy(update=chosen), config.evaluation
    cells = compared_cells(scores, study, section)
    return ResultTable(
        metric=scores.metric,
        per=scores.per,
        confidence=section.confidence,
        reference=reference,
        cells=cells,
        over=over_data(scores, cells, study, section),
        published=published(scores.metric) if with_published else [],
        cautions=cautions(scores, cells),
    )
