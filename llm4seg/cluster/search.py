"""Search on Ray Tune: each trial is the same training as `train`, with some parameters overridden."""

import random
from dataclasses import dataclass
from itertools import product
from typing import Any

import pandas as pd
from ray import tune
from ray.tune import RunConfig, TuneConfig, Tuner
from ray.tune.integration.ray_train import TuneReportCallback

from llm4seg.cluster.node_data import NodeData, node_data
from llm4seg.cluster.train import forget_run, run_name, storage, train_on_ray
from llm4seg.config import Config
from llm4seg.sections import Overrides


@dataclass(frozen=True)
class Findings:
    """The best trial's overrides, and a row a trial: its parameters, epochs and best validation Dice."""

    best: Overrides
    trials: pd.DataFrame


def candidates(config: Config) -> list[Overrides]:
    """`search.trials` different points of the space (all of it, if it has no more), drawn by `search.seed`."""
    names, choices = list(config.search.space), list(config.search.space.values())
    points = [dict(zip(names, point, strict=True)) for point in product(*choices)]
    random.Random(config.search.seed).shuffle(points)
    return points[: config.search.trials]


class _ReportEpochs(TuneReportCallback):
    """Tells Tune how each epoch went, and nothing of checkpoints within one."""

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        if "epoch" in metrics[0]:
            super().after_report(run_context, metrics, checkpoint)


def _trial(sample: dict[str, Any], params: dict[str, Any], data: NodeData | None) -> None:
    """What Tune runs for one candidate, on any node: a training on workers of its own."""
    config = Config.parse(params).override(sample["overrides"])
    if data is not None:
        config = data.on_this_node(config)
    train_on_ray(config, [_ReportEpochs()], name=_trial_name(config), data=data)


def run_search(config: Config) -> Findings:
    """Train every candidate for `search.epochs` epochs on the connected cluster and compare validation Dice."""
    shorter = config.override({"training.epochs": config.search.epochs})
    points, search = candidates(config), f"search-{config.digest('search')}"
    # a trial's own process only waits for its workers
    trial = tune.with_parameters(_trial, params=shorter.plain(), data=node_data(config))
    trainable = tune.with_resources(trial, {"CPU": 0.01})
    tuner = Tuner(
        trainable,
        param_space={"overrides": tune.grid_search(points)},
        tune_config=TuneConfig(metric="val_dice", mode="max", max_concurrent_trials=1),
        run_config=RunConfig(name=search, storage_path=storage(config), verbose=1),
    )
    findings = _findings(tuner.fit())
    for name in (search, *(_trial_name(shorter.override(point)) for point in points)):
        forget_run(config, name)
    return findings


def _trial_name(config: Config) -> str:
    return f"search-{run_name(config)}"


def _findings(results: Any) -> Findings:
    rows = [
        {
            **result.config["overrides"],
            "epochs": result.metrics["epoch"],
            "val_dice": result.metrics_dataframe["val_dice"].max(),
        }
        for result in results
        if result.error is None
    ]
    trials = pd.DataFrame(rows).sort_values("val_dice", ascending=False, ignore_index=True)
    best = results.get_best_result(scope="all").config["overrides"]
    return Findings(best, trials)
