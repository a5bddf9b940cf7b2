"""Stage `split`: assign each case to the training, validation or test part."""

import logging

from rich.table import Table

from llm4seg.config import Config
from llm4seg.data.prepared import Prepared
from llm4seg.data.rules import split_by_rule
from llm4seg.data.split import Split, write_split
from pipelines.stage import run_stage, show

log = logging.getLogger("llm4seg.pipelines.split")


def split(config: Config) -> None:
    """Split the prepared cases and write the split to `paths.split`."""
    prepared = Prepared(config.paths.prepared)
    made = split_by_rule(prepared, config.split)
    write_split(config.paths.split, made)
    log.debug("split: %s of the %d cases of %s", config.paths.split, len(prepared.cases), prepared.folder)
    show(_table(prepared, made))
    for line in made.warnings:
        log.warning(f"warning: {line}")


def _table(prepared: Prepared, made: Split) -> Table:
    """The table of parts: their cases, and their percentage of each class's pixels."""
    table = Table(title="split", caption=made.rule)
    for heading in ("part", "cases", *(f"{name} %" for name in prepared.classes)):
        table.add_column(heading, justify="left" if heading == "part" else "right")
    parts = {"train": made.train, "val": made.val, "test": made.test, "left out": made.left_out}
    for part, ids in parts.items():
        shares = (f"{100 * _share(prepared, ids, name):.0f}" for name in prepared.classes)
        table.add_row(part, str(len(ids)), *shares)
    return table


def _share(prepared: Prepared, ids: tuple[str, ...], name: str) -> float:
    total = sum(case.pixels[name] for case in prepared.cases.values())
    return sum(prepared.cases[case_id].pixels[name] for case_id in ids) / total


if __name__ == "__main__":
    run_stage("split", "Share the cases out to train, val and test, and to k folds.", split)
