"""Stage `train`: fit the hybrid; write its weights, model.json and the history."""

import logging
import time

import psutil

from llm4seg.config import Config
from llm4seg.config.best import read_best
from llm4seg.utils.files import write_json
from pipelines.stage import run_stage

log = logging.getLogger("llm4seg.pipelines.train")


def trainings(config: Config) -> list[Config]:
    """The config with the search's overrides applied."""
    return [config.override(read_best(config.paths.search))]


def train(config: Config) -> None:
    """Train with the search's overrides applied."""
    from llm4seg.cluster.launcher import train as launch
    from llm4seg.cluster.run_lock import run_lock
    from llm4seg.cluster.runs import run_name
    from llm4seg.models.saved import save_trained
    from llm4seg.training.history import write_history
    from llm4seg.training.inputs import training_inputs

    (config,) = trainings(config)
    name = run_name(config)
    with run_lock(config, [name]):
        outcome = launch(config, name)
        with outcome.weights() as weights:
            save_trained(config.paths.model, weights, config, training_inputs(config)[0], outcome.engine)
        write_history(config.paths.history, outcome.history)
        outcome.forget()
    if (stopped := len(outcome.history)) < config.training.epochs:
        log.info(
            f"train: stopped after epoch {stopped}: no better validation Dice in {config.training.patience} epochs"
        )
    report_time(config, outcome.seconds)


def report_time(config: Config, fit: float) -> None:
    """Print and write the seconds of the stage and of its training. Not an output: they differ between runs."""
    stage = time.time() - psutil.Process().create_time()
    log.info(f"train: {stage:.0f} s, of which {fit:.0f} s training and {stage - fit:.0f} s launch, imports and files")
    write_json(config.paths.cache / "train_seconds.json", {"stage": round(stage, 1), "fit": round(fit, 1)})


if __name__ == "__main__":
    run_stage("train", "Fit the hybrid; leave its weights and its history.", train, trainings=trainings)
