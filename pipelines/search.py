"""Stage `search`: find better parameters with Ray Tune; with `search.trials: 0`, override none."""

from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from llm4seg.config import Config
from llm4seg.utils.files import replacing, write_json
from pipelines.stage import run_stage

BEST, TRIALS, EPOCHS, SPACE, IMPORTANCE = "best.json", "trials.csv", "epochs.csv", "space.json", "importance.json"
SHOWN = 10  # trials in the table at the end


def search(config: Config) -> None:
    """Leave best.json, which `train` applies, tables of trials and their epochs, what was searched, and plots."""
    if config.search.trials == 0:
        print("search: off (search.trials is 0); no parameter is overridden")
        with replacing(config.paths.search) as folder:
            folder.mkdir()
            write_json(folder / BEST, {})
        return
    from llm4seg.cluster.session import ray_session
    from llm4seg.search.driver import forget_search, run_search

    with ray_session(config.cluster):
        findings = run_search(config)
    with replacing(config.paths.search) as folder:
        folder.mkdir()
        write_json(folder / BEST, findings.best)
        write_json(folder / SPACE, config.plain()["search"])
        write_json(folder / IMPORTANCE, findings.importance)
        findings.trials.to_csv(folder / TRIALS, index=False)
        findings.epochs.to_csv(folder / EPOCHS, index=False)
        leave_plots(folder)
    forget_search(config)
    Console().print(table(findings.trials, config))
    print(f"search: best of {len(findings.trials)} trials: {findings.best}")


def leave_plots(folder: Path) -> None:
    """Draw what the tables in a folder say, as SVG files."""
    from llm4seg.report.charts import as_file
    from llm4seg.report.inputs import read_search
    from llm4seg.report.search_charts import draw_search

    for name, svg in draw_search(read_search(folder)).items():
        (folder / f"{name}.svg").write_text(as_file(svg), encoding="utf-8")


def table(trials: pd.DataFrame, config: Config) -> Table:
    """The best trials, and with several objectives those that no other one beats."""
    several = len(config.search.objectives) > 1
    rows = trials[trials["pareto"]] if several else trials.head(SHOWN)
    shown = Table(title="search: trials that no other beats in every objective" if several else "search: best trials")
    columns = [*config.search.objectives, "epochs", "status", *config.search.space]
    for name in columns:
        shown.add_column(name.rsplit(".", 1)[-1], overflow="fold")
    for row in rows.to_dict("records"):
        shown.add_row(*["" if pd.isna(row[name]) else _spelled(row[name]) for name in columns])
    return shown


def _spelled(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    run_stage("search", "Find better parameters with Ray Tune; with search.trials: 0, override none.", search)
