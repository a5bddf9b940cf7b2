"""A small copy of the default question in a folder of its own, for benchmarks that search: its data, all 30 layers."""

import time
from pathlib import Path
from typing import Any

import pandas as pd

from llm4seg.config import Config
from llm4seg.utils.files import read_json, write_json

PARAMS = Path(__file__).parents[2] / "params.yaml"
LAYERS = 30  # of the default LLM
PAIRED = {"cluster.cpus_per_worker": 1, "cluster.trials": 2}  # two at once, on a core each, do more than one on two


def workspace(folder: Path, size: int, changes: dict[str, Any]) -> Config:
    """The project's params with their paths under `folder`; data and layers are made there unless they are."""
    from pipelines.fetch_llm import fetch_llm
    from pipelines.prepare import prepare
    from pipelines.split import split

    config, project = Config.load(PARAMS), PARAMS.absolute().parent
    paths = {f"paths.{name}": str(folder.absolute() / path.relative_to(project)) for name, path in config.paths}
    small = {"data.size": [size, size], "llm.layers": list(range(LAYERS))}
    config = config.override(paths | small | changes)
    if not config.paths.split.exists():
        every_layer = {"search.trials": 1, "search.space": {"model.llm.layer": {"randint": [0, LAYERS - 1]}}}
        fetch_llm(config.override(every_layer))
        prepare(config)
        split(config)
    return config


def searched(config: Config, name: str, **changes: Any) -> tuple[pd.DataFrame, pd.DataFrame, float]:
    """Run the stage `search`, unless it was; returns its trials, their epochs and the seconds it took in all.

    `changes` are of the section `search`.
    """
    from pipelines.search import search

    folder = config.paths.search.parent / name
    config = config.override({"paths.search": str(folder)} | {f"search.{key}": value for key, value in changes.items()})
    clock = folder.parent / f"{name}-seconds.json"
    if not folder.exists():
        before, began = read_json(clock) if clock.exists() else 0.0, time.monotonic()
        try:
            search(config)
        finally:
            write_json(clock, before + time.monotonic() - began)
    seconds = float(read_json(clock))
    return pd.read_csv(folder / "trials.csv"), pd.read_csv(folder / "epochs.csv"), seconds
