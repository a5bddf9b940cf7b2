"""The table as Markdown, LaTeX and CSV, and the files that it is written to."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from llm4seg.tools.table.result_table import OVER, Cell, ResultTable
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import write_text

# characters that LaTeX reads as commands, and those that not every font has
LATEX = {
    "\\": r"\textbackslash{}",
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "†": r"$^\dagger$",
    "<": r"$<$",
    ">": r"$>$",
}
GRAY = '<span style="color: gray">{}</span>'


def markdown(table: ResultTable) -> str:
    """A table with a line of differences in each cell, and the legend as a list below it."""
    lines = [_markdown_row(["method", *table.headings]), _markdown_row(["---"] * (len(table.headings) + 1))]
    for method, cells in table.rows.items():
        name = f"{method} (reference)" if method == table.reference else method
        lines.append(_markdown_row([name, *map(_markdown_cell, cells)]))
    for method, texts in table.published_rows().items():
        lines.append(_markdown_row([GRAY.format(text) if text else "" for text in (method, *texts)]))
    return "\n".join([*lines, "", *(f"- {line}" for line in table.legend())]) + "\n"


def _markdown_cell(cell: Cell) -> str:
    mean = f"**{cell.mean}**" if cell.bold else cell.mean
    difference = cell.difference.replace("*", "\\*")
    return "<br>".join(text for text in (mean, difference) if text)


def _markdown_row(texts: list[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"


def latex(table: ResultTable) -> str:
    """A `tabular` of the packages booktabs and xcolor, differences in a line of their own; the legend as comments."""
    lines = [r"% \usepackage{booktabs, xcolor}", rf"\begin{{tabular}}{{l{'c' * len(table.headings)}}}", r"\toprule"]
    lines += [_latex_row(["method", *table.headings]), r"\midrule"]
    for method, cells in table.rows.items():
        means = [rf"\textbf{{{_escaped(cell.mean)}}}" if cell.bold else _escaped(cell.mean) for cell in cells]
        lines.append(f"{' & '.join([_escaped(method), *means])} \\\\")
        if any(cell.difference for cell in cells):
            small = [rf"\scriptsize {_escaped(cell.difference)}" if cell.difference else "" for cell in cells]
            lines.append(f"{' & '.join(['', *small])} \\\\")
    published = table.published_rows()
    lines += [r"\midrule"] if published else []
    for method, texts in published.items():
        gray = [rf"\textcolor{{gray}}{{{_escaped(text)}}}" if text else "" for text in (method, *texts)]
        lines.append(f"{' & '.join(gray)} \\\\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", *(f"% {line}" for line in table.legend())]) + "\n"


def _latex_row(texts: list[str]) -> str:
    return f"{' & '.join(map(_escaped, texts))} \\\\"


def _escaped(text: str) -> str:
    return "".join(LATEX.get(char, char) for char in text)


def csv(table: ResultTable) -> str:
    """A row per method and data set (`data` is OVER for all of them together), scores from 0 to 1, the
    published ones with their `source`.
    """
    about = {"metric": table.metric, "per": table.per, "reference": table.reference}
    over = table.over.assign(data=OVER) if len(table.over) else table.over
    ours = pd.concat([table.cells, over], ignore_index=True).assign(**about)
    names = ("method", "data", "metric", "source", "second_hand", "protocol", "same_protocol", "same_split")
    rows = [
        {name: getattr(one, name) for name in names} | {"mean": round(one.points / 100, 6)} for one in table.published
    ]
    ours = ours.rename(columns={"method": "interval", "arm": "method"})
    wanted = ["method", "data", "metric", "per", "mean", "std", "runs", "reference", "difference", "low", "high"]
    wanted += ["interval", "p", "p_holm", "best", "unit", "cases", "data_sets", *names[3:]]
    whole = pd.concat([ours, pd.DataFrame(rows)], ignore_index=True)
    return whole.reindex(columns=wanted).to_csv(index=False, float_format="%.6g", lineterminator="\n")


FORMATS: dict[str, Callable[[ResultTable], str]] = {".md": markdown, ".tex": latex, ".csv": csv}


def check_target(target: Path) -> None:
    """Raise InputError unless a table can be written there: a file of a known ending, or a folder."""
    if target.is_dir() or not target.suffix:
        return
    if target.suffix not in FORMATS:
        raise InputError(f"-o: found {target}, allowed: a name that ends in {', '.join(FORMATS)}, or a folder for all")


def write_table(table: ResultTable, target: Path) -> list[Path]:
    """Write the table to a file, in the format of its ending, or as all of them to a folder. Returns the files."""
    check_target(target)
    if target.suffix in FORMATS and not target.is_dir():
        files = [target]
    else:
        files = [target / f"table{ending}" for ending in FORMATS]
    for file in files:
        write_text(file, FORMATS[file.suffix](table))
    return files
