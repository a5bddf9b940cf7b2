"""Stage `search`: find better parameters with Ray Tune; none with `search.trials: 0`."""

import logging

import pandas as pd
from rich.table import Table

from llm4seg.config import Config
from llm4seg.utils.errors import InputError
from pipelines.stage import run_stage, show

log = logging.getLogger("llm4seg.pipelines.search")

SHOWN = 10  # trials in the table at the end


def trainings(config: Config) -> list[Config]:
    """Configs that stand for all trials of the search; none with search.trials: 0."""
    return [config, *config.corners()] if config.search.trials else []


def search(config: Config) -> None:
    """Write best.json, which `train` applies, tables of trials and their epochs, and the space."""
    from llm4seg.search.results import write

    if config.search.trials == 0:
        log.info("search: off (search.trials is 0); no parameter is overridden")
        write(config.paths.search, None)
        return
    if config.cluster.launcher == "process":
        raise InputError("cluster.launcher: found process, allowed for a search: ray, whose Tune runs the trials")
    if config.search.screen:
        from llm4seg.search.screened import check_screen

        check_screen()
    from llm4seg.cluster.run_lock import run_lock
    from llm4seg.cluster.session import ray_session
    from llm4seg.search.driver import forget_search, run_search, search_name

    name = search_name(config)
    with run_lock(config, [name]):
        with ray_session(config.cluster):
            result = run_search(config, name)
        write(config.paths.search, result)
        forget_search(config, name)
    show(table(result.trials, config))
    log.info(f"search: best of {len(result.trials)} trials: {result.best}")


def table(trials: pd.DataFrame, config: Config) -> Table:
    """A table of the best trials, or with several objectives of the Pareto front."""
    several = len(config.search.objectives) > 1
    rows = trials[trials["pareto"]] if several else trials.head(SHOWN)
    shown = Table(title="search: trials that no other beats in every objective" if several else "search: best trials")
    columns = [*config.search.objectives, "epochs", "status", *config.search.space]
    for name in columns:
        shown.add_column(name.rsplit(".", 1)[-1], overflow="fold")
    for row in rows.to_dict("records"):
        shown.add_row(*["" if pd.isna(row[name]) else _format(row[name]) for name in columns])
    return shown


def _format(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    run_stage(
        "search",
        "Find better parameters with Ray Tune; with search.trials: 0, override none.",
        search,
        trainings=trainings,
    )
