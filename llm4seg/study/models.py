"""Models of a study's runs: which are kept, and where they are written."""

import re
from collections.abc import Sequence
from pathlib import Path

from llm4seg.cluster.runs import Outcome
from llm4seg.cluster.storage import temporary_folder
from llm4seg.config import Config
from llm4seg.models.saved import save_trained
from llm4seg.study.arms import PlannedRun
from llm4seg.study.run_store import RunStore
from llm4seg.training.inputs import training_inputs

MODELS = "models"  # a folder of `paths.study`


def keep_model(config: Config, name: str, outcome: Outcome) -> None:
    """Write the model of a finished run to the store, with the cases that it has seen, if `study.keep` says so."""
    if config.study.keep == "none":
        return
    data, split = training_inputs(config)
    with temporary_folder() as folder, outcome.weights() as weights:
        save_trained(folder / name, weights, config, data, outcome.engine, seen=(*split.train, *split.val))
        RunStore(config).put_model(name, folder / name)


def lacks_model(config: Config, name: str) -> bool:
    """Whether a run's model is wanted and not in the store."""
    return config.study.keep == "weights" and not RunStore(config).has_model(name)


def folder_of(planned: PlannedRun, seed: int) -> Path:
    """The folder of a run's model below MODELS: arm/fold-K-seed-S, or arm/seed-S; of `study.data`, below its name."""
    fold = "" if planned.fold is None else f"fold-{planned.fold}-"
    folder = Path(planned.arm) / f"{fold}seed-{seed}"
    return folder if planned.data is None else Path(re.sub(r"[^\w+=-]", "_", planned.data)) / folder


def write_models(config: Config, runs: Sequence[tuple[PlannedRun, int, str]], folder: Path) -> None:
    """Write the models that are in the store to a study's folder; `runs`: with their seeds, and names in the store."""
    store = RunStore(config)
    for planned, seed, name in runs:
        if store.has_model(name):
            store.get_model(name, folder / MODELS / folder_of(planned, seed))
