"""Stage `prepare`: read raw images and masks, and write shards and a manifest."""

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from llm4seg.config import Config
from llm4seg.data.prepared import Prepared, duplicates
from llm4seg.datasets.registry import open_dataset
from llm4seg.datasets.writer import write_prepared
from pipelines.stage import run_stage

SHOWN = 10  # notices of files


def prepare(config: Config) -> None:
    """Read the dataset that the config names, audit it, and write it to `paths.prepared`."""
    dataset = open_dataset(config.data, config.paths.cache)
    print(f"{dataset.name}: license {dataset.license}; cite {dataset.citation}", flush=True)
    prepared = write_prepared(dataset, config.data, config.paths.prepared)
    Console().print(_table(prepared))
    for notice in shown_notices(prepared.notices):
        print(f"prepare: {notice}", file=sys.stderr)
    if prepared.note:
        print(f"note: {prepared.note}")


def shown_notices(notices: Sequence[str]) -> list[str]:
    """The first of them, and how many more there are."""
    more = [f"and {len(notices) - SHOWN} more such lines, in manifest.json"] if len(notices) > SHOWN else []
    return [*notices[:SHOWN], *more]


def _table(prepared: Prepared) -> Table:
    """The table of classes: their cases and pixels."""
    cases = prepared.cases.values()
    groups = {case.group for case in cases}
    counts = f"{len(cases)} cases in {len(groups)} groups; {duplicates(cases)} show the image of an earlier one"
    table = Table(caption=counts)
    for heading in ("class", "cases with it", "pixels"):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    for name in prepared.classes:
        pixels = [case.pixels[name] for case in cases]
        table.add_row(name, str(sum(count > 0 for count in pixels)), f"{sum(pixels):,}")
    return table


if __name__ == "__main__":
    run_stage("prepare", "From raw images and masks to shards and a manifest.", prepare)
