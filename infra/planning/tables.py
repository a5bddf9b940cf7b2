"""A plan as a person reads it."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from infra.planning.cost_estimate import Cost, Line
from infra.planning.quotas import Quota

if TYPE_CHECKING:
    from infra.planning.memory import Fit  # brings torch along, for which no other command should wait


def _table(title: str, *headings: str) -> Table:
    """The first column names what the others count."""
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", no_wrap=True)
    return table


def time_table(found: Iterable[Line]) -> Table:
    table = _table("", "estimated", "runs", "epochs", "GPU hours", "hours", "nodes")
    gpu_hours = hours = 0.0
    for one in found:
        counts = (str(one.runs or ""), str(one.epochs or ""))
        table.add_row(one.name, *counts, f"{one.gpu_hours:.2f}", f"{one.hours:.2f}", str(one.nodes))
        gpu_hours, hours = gpu_hours + one.gpu_hours, hours + one.hours
    table.add_section()
    table.add_row("in all", "", "", f"{gpu_hours:.2f}", f"{hours:.2f}", "")
    return table


def cost_table(spot: Cost, on_demand: Cost, knows_head: bool) -> Table:
    table = _table("", "estimated USD", "workers on spot", "on demand")
    both = (spot, on_demand)
    table.add_row("workers", *(f"{one.workers:.2f}" for one in both))
    table.add_row("head (on demand)", *(f"{one.head:.2f}" if knows_head else "?" for one in both))
    table.add_row("disks", *(f"{one.disks:.2f}" for one in both), end_section=True)
    table.add_row("in all", *(f"{one.whole:.2f}" for one in both))
    return table


def memory_table(found: Iterable["Fit"]) -> Table:
    """GB of each worker, as `python -m llm4seg.tools.memory_estimate` has them."""
    names = ("parameters", "gradients", "optimizer", "activations")
    table = _table("Memory: GB a worker", "estimated", *names, "in all", "usable", "")
    for one in found:
        parts = (f"{getattr(one.needs, part) / 1e9:.2f}" for part in names)
        count = f"{one.images} image{'' if one.images == 1 else 's'}"
        whole = (f"{one.needs.device / 1e9:.2f}", f"{one.usable / 1e9:.1f}")
        table.add_row(f"{one.gpu}, {one.engine}, {count}", *parts, *whole, _verdict(one))
    return table


def _verdict(one: "Fit") -> str:
    if one.fits:
        return "fits"
    return f"too much; {one.other} fits" if one.other else "too much for every engine: smaller batches, a larger GPU"


def quota_table(found: Iterable[Quota]) -> Table:
    table = _table("Quota to ask for, if the account has less", "nodes", "at least", "of")
    table.columns[2].justify = "left"
    table.columns[2].no_wrap = False
    for one in found:
        table.add_row(one.nodes, f"{one.amount} {one.unit}{'' if one.amount == 1 else 's'}", one.name)
    return table
