"""Runner of a study: the names, evaluation and storage of its runs, and all runs in this process, without Ray."""

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llm4seg.cluster.process_run import chosen_device, train_in_process
from llm4seg.cluster.runs import Outcome, final_weights, forget_run, run_name
from llm4seg.cluster.stop_signal import LocalStopSignal, stop_on_sigterm
from llm4seg.config import Config
from llm4seg.data.prepared import Case, Prepared
from llm4seg.data.split import read_split
from llm4seg.evaluation.evaluate import evaluate_cases
from llm4seg.evaluation.likelihood import LOG_LIKELIHOOD, add_log_likelihood
from llm4seg.evaluation.masks import check_options, check_turned
from llm4seg.evaluation.volumes import are_slices, not_whole
from llm4seg.inference.prepared import Member
from llm4seg.objectives.metrics import Row
from llm4seg.runtime.device import device_that_fits
from llm4seg.runtime.seeding import set_deterministic
from llm4seg.study.arms import PlannedRun, planned_runs, write_splits
from llm4seg.study.data_sets import configs_of_data, naming
from llm4seg.study.features import measure_features, name_sources
from llm4seg.study.models import keep_model, lacks_model
from llm4seg.study.results import Record, Runs, finished, lacks_metric
from llm4seg.study.run_store import RunStore
from llm4seg.training.inputs import training_inputs
from llm4seg.training.run import Event
from llm4seg.training.trainer import assemble
from llm4seg.utils.errors import InputError, StopRequested, UserError
from llm4seg.utils.logs import level_of
from llm4seg.utils.provenance import MEASURING, code_digest, git_commit, versions

log = logging.getLogger(__name__)

Measured = dict[str, list[Row]]  # `rows` of cases, `volumes`, and with study.analyze features, as in a run's record
STOPPED = "finished runs are kept and those under way have saved a checkpoint; run it again to go on"


@dataclass(frozen=True)
class NamedRun:
    """A run of a study with its config, and its name in the store of finished runs."""

    planned: PlannedRun
    config: Config
    name: str


def named_runs(config: Config) -> list[NamedRun]:
    """Every run of the study; of several data sets, a repeat and fold on all of them before the next.

    Reads and hashes files, so callers compute it once.
    """
    if not config.study.data:
        return _runs_on(config)
    each = []
    for folder, (name, own) in zip(config.study.data, configs_of_data(config).items(), strict=True):
        with naming(folder):
            each.append([replace(run, planned=replace(run.planned, data=name)) for run in _runs_on(own)])
    arms = len(config.study.chosen)
    starts = range(0, len(each[0]), arms)
    return [run for start in starts for runs in each for run in runs[start : start + arms]]


def _runs_on(config: Config) -> list[NamedRun]:
    """Every run on the data of `paths.prepared`."""
    _check_other_data(config)
    data = Prepared(config.paths.prepared)
    check_options(data, config.evaluation)
    write_splits(config)
    runs = [(planned, planned.config(config)) for planned in planned_runs(config)]
    for _, own in runs:
        check_turned(data, own.evaluation, own.training.augment)
    if config.study.per == "volume":
        _check_volumes(config, dict.fromkeys(own.paths.split for _, own in runs))
    return [_named(planned, own) for planned, own in runs]


def _named(planned: PlannedRun, config: Config) -> NamedRun:
    """The run with its name, a digest of the computation and its evaluation: equal names, equal results."""
    other = config.study.other_data and Prepared(config.study.other_data).sha256
    section = config.evaluation
    sources: list[Any] = [run_name(config), code_digest(*MEASURING), section.nsd_tolerance, section.overlap, other]
    for option in ("tta", "postprocess"):
        if values := getattr(section, option):  # without, a run is what it was before there were these
            sources.append((option, values))
    sources += name_sources(config)
    return NamedRun(planned, config, "run-" + config.digest(extra=str(sources)))


def records(config: Config, runs: Sequence[NamedRun]) -> Runs:
    """Every run of the study with its record, or None where it has none, or one without `study.metric`."""
    store, metric = RunStore(config), config.study.metric
    found = [(run.planned, store.read(run.name)) for run in runs]
    return [(planned, None if lacks_metric(record, metric) else record) for planned, record in found]


def jobs(config: Config, runs: Sequence[NamedRun]) -> dict[str, Config]:
    """The configs of unfinished runs, by name; failed runs come last.

    With `study.keep: weights`, a finished run whose model is not in the store is to be run again.
    """
    pairs = list(zip(runs, (record for _, record in records(config, runs)), strict=True))
    waiting = [run for run, record in pairs if record is None]
    again = [run for run, record in pairs if finished(record) and lacks_model(config, run.name)]
    failed = [run for run, record in pairs if record and not finished(record)]
    return {run.name: run.config for run in (*waiting, *again, *failed)}


def without_models(config: Config, runs: Sequence[NamedRun]) -> str | None:
    """A line on finished runs that are made again for their models; None where there are none."""
    done = [run for run, (_, record) in zip(runs, records(config, runs), strict=True) if finished(record)]
    if not (count := sum(lacks_model(config, run.name) for run in done)):
        return None
    return f"{count} finished runs have left no model, which study.keep: weights wants: they are trained again"


def without_metric(config: Config, runs: Sequence[NamedRun]) -> str | None:
    """A line on finished runs that are made again, since they were not measured by `study.metric`; None without any."""
    store, metric = RunStore(config), config.study.metric
    if not (count := sum(lacks_metric(store.read(run.name), metric) for run in runs)):
        return None
    return f"{count} finished runs were measured without {metric}, which study.metric wants: they are trained again"


def forget_finished(config: Config, runs: Sequence[NamedRun]) -> None:
    """Delete the checkpoints of finished runs, which a process leaves that is killed just after it wrote the record."""
    unfinished = jobs(config, runs)
    for run in runs:
        if run.name not in unfinished:
            forget_run(config, checkpoints_name(run.name))


def names_in_storage(config: Config, runs: Sequence[NamedRun]) -> list[str]:
    """The names of the folders in the storage of the unfinished runs, and on Ray of the experiment that runs them."""
    names = [checkpoints_name(name) for name in jobs(config, runs)]
    return names if config.cluster.launcher == "process" else [experiment_name(config), *names]


def run_in_process(config: Config, runs: Sequence[NamedRun]) -> None:
    """Run the unfinished runs in this process, one after another.

    An interrupted training goes on from its last checkpoint. On SIGTERM, the training saves a checkpoint; raises
    StopRequested.
    """
    pending, store, stop_signal = jobs(config, runs), RunStore(config), LocalStopSignal()
    commit, device = current_commit(), chosen_device(config.cluster)
    with stop_on_sigterm(stop_signal):
        for number, (name, job) in enumerate(pending.items(), start=1):
            if stop_signal.stop_requested():
                raise StopRequested(STOPPED)
            prefix = f"study: {number} of {len(pending)} runs:"
            try:
                job = job.override({"tracking.pictures": 0})  # nobody looks
                outcome = train_in_process(job, checkpoints_name(name), print_line, stop_signal)
                keep(job, name, outcome, evaluate_run(job, name, device), commit)
                log.info(f"{prefix} {outcome.seconds:.0f} s of training")
            except StopRequested:
                raise StopRequested(STOPPED) from None
            except UserError as error:
                store.put(name, {"name": name, "error": str(error)})
                log.warning(f"{prefix} failed")


def print_line(event: Event) -> None:
    """Print an event that is a log line; rows of epochs would be too many."""
    if isinstance(event, str):
        _print_once(event)


@cache
def _print_once(line: str) -> None:
    """Print a line the first time; most runs of a study log the same lines."""
    log.log(level_of(line), f"study: {line}")


def current_commit() -> str:
    """The commit of this code."""
    return git_commit(Path(__file__).parent)


def keep(config: Config, name: str, outcome: Outcome, measured: Measured, commit: str) -> None:
    """Write the record of a finished run to the store, and its model if it is kept; then delete its checkpoints."""
    keep_model(config, name, outcome)
    record = {
        "name": name,
        "epochs": len(outcome.history),
        "seconds": round(outcome.seconds, 1),
        "git_commit": commit,
        **_record(config, measured),
    }
    RunStore(config).put(name, record)
    forget_run(config, checkpoints_name(name))


def experiment_name(config: Config) -> str:
    """The name of the study as an experiment of Ray Tune."""
    return f"study-{config.digest('study')}"


def checkpoints_name(name: str) -> str:
    """The name of a run's checkpoints in the storage."""
    return f"study-{name}"


def evaluate_run(config: Config, name: str, device: torch.device) -> Measured:
    """Evaluate the final weights of a run on the test part and all of `study.other_data`: `rows`, a row per case and
    class, and `volumes`, per volume and class; with study.analyze also the tables of `measure_features`.
    """
    weights: dict[str, Tensor] = final_weights(config, checkpoints_name(name))
    own, split = training_inputs(config)
    model = assemble(config.override({"training.init_from": None}), own)
    model.load_weights(weights)
    device = device_that_fits(model, device)
    set_deterministic(device)
    model.to(device)
    parts = [(own, split.test)]
    if config.study.other_data is not None:
        other = Prepared(config.study.other_data)
        if own.normalization is not None:
            other = other.for_network(own.size, own.normalization)
        parts.append((other, tuple(other.cases)))
    measured: Measured = {"rows": [], "volumes": []}
    for data, case_ids in parts:
        rows, volumes = evaluate_cases(model, data, case_ids, config.evaluation)
        if config.study.metric == LOG_LIKELIHOOD:
            rows, volumes = add_log_likelihood(rows, volumes, [Member(model, data)], config.evaluation)
        measured["rows"] += [{"data": data.name, **_position(data.cases[row["case"]]), **row} for row in rows]
        measured["volumes"] += [{"data": data.name, **row} for row in volumes]
    if config.study.analyze:
        measured |= measure_features(config, model, own, split)
    return measured


def _position(case: Case) -> Row:
    """The volume of a slice and its position in it; None for an image that is no slice."""
    return {"volume": case.volume, "position": case.position}


def _record(config: Config, measured: Measured) -> Record:
    plain = config.plain()
    return {
        "config": {section: plain[section] for section in ("model", "optimizer", "training", "engine")},
        **{
            table: [{key: _plain(value) for key, value in row.items()} for row in rows]
            for table, rows in measured.items()
        },
        "versions": versions(),
    }


def _plain(value: Any) -> Any:
    """A value for JSON, which has no NaN: None."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _check_other_data(config: Config) -> None:
    if config.study.other_data is None:
        return
    own, other = Prepared(config.paths.prepared), Prepared(config.study.other_data)
    for name in ("spatial_dims", "channels", "spacing", "intensity", "window"):
        expected, found = getattr(own, name), getattr(other, name)
        # older datasets do not record their intensity
        known = None not in (expected, found) or name in ("window", "spacing")
        if expected != found and known:
            raise InputError(
                f"study.other_data: found {name} {found}, allowed: {expected}{_how_to_set(name, expected)}"
            )
    if own.scheme != other.scheme or own.name == other.name:
        raise InputError(
            f"study.other_data: found {other.name} with the classes {', '.join(other.classes)}, allowed: another "
            f"dataset than {own.name}, with the classes {', '.join(own.classes)}, in this order"
        )


def _how_to_set(name: str, expected: Any) -> str:
    """What a manifest has along rows, columns and slices, params.yaml has along x, y and z."""
    if name != "spacing" or expected is None:
        return ""
    rows, columns, slices = expected
    return f"; prepare it again with -S 'data.spacing=[{columns:g}, {rows:g}, {slices:g}]'"


def _check_volumes(config: Config, splits: Iterable[Path]) -> None:
    own = Prepared(config.paths.prepared)
    parts = [(own, read_split(path).test) for path in splits]
    if config.study.other_data is not None:
        other = Prepared(config.study.other_data)
        parts.append((other, tuple(other.cases)))
    for data, case_ids in parts:
        reason = not_whole(data, case_ids) if are_slices(data, case_ids) else f"{data.name} has no slices of volumes"
        if reason is not None:
            raise InputError(f"study.per: found volume, allowed: case, since {reason}")
