"""Stage `study`: train and test arms under several seeds, and compare them; none with `study.repeats: 0`."""

import logging
from functools import partial
from typing import TYPE_CHECKING

from llm4seg.config import Config
from llm4seg.config.best import read_best
from llm4seg.utils.errors import InputError
from pipelines.stage import run_stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm4seg.study.results import Runs
    from llm4seg.study.runner import NamedRun

log = logging.getLogger("llm4seg.pipelines.study")


def trainings(config: Config) -> list[Config]:
    """The config of each arm, with the search's overrides applied; none with study.repeats: 0."""
    config = config.override(read_best(config.paths.search))
    return [config.arm(name) for name in config.study.chosen] if config.study.repeats else []


def study(config: Config) -> None:
    """Run the unfinished runs, then write the result of all runs."""
    config = config.override(read_best(config.paths.search))
    if config.study.repeats == 0:
        log.info("study: off (study.repeats is 0)")
        write_results(config, [])
        return
    from llm4seg.study.runner import jobs, named_runs, records, without_metric, without_models
    from llm4seg.study.stopping import any_due

    runs = named_runs(config)
    for line in (without_metric(config, runs), without_models(config, runs)):
        if line is not None:
            log.info(f"study: {line}")
    pending = jobs(config, runs)
    log.debug("study: %d of %d runs are finished already", len(runs) - len(pending), len(runs))
    if any_due(config, runs):
        run_missing(config, runs)
    write_results(config, records(config, runs), runs)


def run_missing(config: Config, runs: "list[NamedRun]") -> None:
    """Run the unfinished runs with the launcher of `cluster.launcher`, as far as no look stops the study."""
    from llm4seg.cluster.run_lock import run_lock
    from llm4seg.study.runner import forget_finished, names_in_storage

    forget_finished(config, runs)
    with run_lock(config, names_in_storage(config, runs)):
        _run(config, runs)


def _run(config: Config, runs: "list[NamedRun]") -> None:
    from llm4seg.study.stopping import due

    if config.cluster.launcher == "process":
        from llm4seg.study.runner import run_in_process

        for part in due(config, runs):
            run_in_process(config, part)
        return
    from llm4seg.cluster.session import ray_session
    from llm4seg.study.driver import run_on_ray

    with ray_session(config.cluster):
        for part in due(config, runs):
            run_on_ray(config, part)


def so_far(config: Config) -> None:
    """write what the finished runs say, and run nothing"""
    from llm4seg.study.runner import named_runs, records

    config = config.override(read_best(config.paths.search))
    runs = named_runs(config)
    write_results(config, records(config, runs), runs)


def plan(config: Config) -> None:
    """print how many runs there are, how long they take and what they and other designs can find, and run none"""
    if config.study.repeats == 0:
        raise InputError("study.repeats: found 0, allowed for a plan: 1 or more")
    if config.study.data:
        _plan_each(config)
        return
    from llm4seg.study.plan import cost_estimate, power_analysis, run_seconds
    from llm4seg.study.runner import named_runs, records

    config = config.override(read_best(config.paths.search))
    runs = records(config, named_runs(config))
    seconds = run_seconds(config, runs)
    power = power_analysis(config, runs) if len(config.study.chosen) > 1 else ()
    for line in [*cost_estimate(config, runs, seconds), *power]:
        print(line, flush=True)
    if len(config.study.chosen) > 1:
        _propose(config, runs, seconds)


def _propose(config: Config, runs: "Runs", seconds: dict[str, float]) -> None:
    """Print the designs that the study could have, and which metric tells its arms apart best."""
    from rich.console import Console

    from llm4seg.study.designs import candidates, conclusion, proposal, sensitivity
    from llm4seg.study.plan import design
    from llm4seg.study.results import compared_by_metric

    by_metric = compared_by_metric(config, runs)
    compared = by_metric[config.study.metric]
    of, found = design(config, compared), candidates(config, compared, seconds)
    Console().print(proposal(config, of, found))
    for line in [*conclusion(config, of, found), *sensitivity(by_metric)]:
        print(line, flush=True)


def _plan_each(config: Config) -> None:
    """The plan of the study on each data set of `study.data`, by itself."""
    from llm4seg.study.data_sets import configs_of_data

    for name, own in configs_of_data(config).items():
        print(f"on {name}:", flush=True)
        plan(own)


def write_results(config: Config, runs: "Runs", named: "Sequence[NamedRun]" = ()) -> None:
    """Write the study's folder, with the models that are kept of `named` runs, and print its verdicts."""
    from llm4seg.study.results import results, write

    result = results(config, runs)
    if named and config.study.keep == "weights":
        from llm4seg.study.models import write_models

        kept = [(run.planned, run.config.training.seed, run.name) for run in named]
        write(config.paths.study, result, partial(write_models, config, kept))
    else:
        write(config.paths.study, result)
    of_features = result.summary.get("analysis", {}).get("verdicts", [])
    looks = [line] if (line := result.summary.get("about_looks")) else []
    for line in [*result.summary["verdicts"], *of_features, *looks, *result.summary["cautions"]]:
        log.info(f"study: {line}")
    for line in result.summary["failures"]:
        log.warning(f"study: {line}")
    if result.summary["failed"]:
        log.warning(
            "study: `python -m pipelines.study` tries failed runs again, `dvc repro -f -s study` does, `dvc repro` not"
        )


if __name__ == "__main__":
    run_stage("study", __doc__ or "", study, instead={"plan": plan, "so-far": so_far}, trainings=trainings)
