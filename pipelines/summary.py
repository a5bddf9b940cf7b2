"""Print the test metrics, and where the report and the overlays are."""

from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from llm4seg.config import Config
from llm4seg.evaluation.score_tables import score_tables
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import read_json
from pipelines.stage import near, run_stage


def summary(config: Config) -> None:
    """Print the test part's metrics as tables: per volume, where there are such, and per case."""
    for path, stage in ((config.paths.metrics, "evaluate"), (config.paths.report, "report")):
        if not path.exists():
            raise InputError(f"{path}: not there yet; run `dvc repro {stage}`")
    metrics = read_json(config.paths.metrics)
    console = Console(highlight=False)
    for of, scores in score_tables(metrics).items():
        console.print(table(scores, of))
        console.print(
            f"[dim]Dice: mean over {of}; pooled: Dice of all {of}' pixels together; threshold: Dice by intensity.[/]"
        )
        if scores["unit"] == "case" and scores["groups"] < scores["cases"]:
            console.print(f"[dim]{of} of one group resemble each other: the true uncertainty is larger[/]")
    for name, path in (("report", config.paths.report), ("pictures", config.paths.evaluation / "overlays")):
        console.print(f"{name + ':':10}{escape(near(path))}", soft_wrap=True)


def table(metrics: dict[str, Any], of: str = "cases") -> Table:
    """A row per class, and one for the mean over classes; `pooled` and `threshold` are Dice, too."""
    table = Table(title=f"{metrics['cases']} {metrics['part']} {of}", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("class")
    hd95 = f"HD95 {metrics.get('distance_unit', 'mm')}"  # earlier versions knew no other
    for name in (f"Dice [{metrics['confidence']:.0%} interval]", "pooled", "IoU", hd95, "threshold"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, values in metrics["classes"].items():
        table.add_row(escape(name), *_cells(values, metrics["baseline"]["classes"][name]))
    table.add_section()
    table.add_row("mean", *_cells(metrics, metrics["baseline"]), style="bold")
    return table


def _cells(values: dict[str, Any], threshold_baseline: dict[str, Any]) -> list[str]:
    dice = values["dice"]
    interval = "" if dice["low"] is None else escape(f" [{dice['low']:.2f}, {dice['high']:.2f}]")
    means = [
        _number(values["pooled_dice"]),
        _number(values["iou"]["mean"]),
        _number(values["hd95"]["mean"], digits=1),
        _number(threshold_baseline["dice"]["mean"]),
    ]
    return [_number(dice["mean"]) + interval, *means]


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    run_stage("summary", __doc__ or "", summary, in_dvc=False)
