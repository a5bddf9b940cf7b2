"""A trial: the same training as `train`, with some parameters overridden, on a crew that stays for the next trial."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

from ray.tune import Trainable

from llm4seg.cluster.crew import Crew
from llm4seg.cluster.data_sync import DataSync
from llm4seg.cluster.launch import storage
from llm4seg.cluster.storage import RunFolder
from llm4seg.config import Config
from llm4seg.config.schema import Overrides
from llm4seg.training.checkpoint import Checkpoint, DamagedCheckpoint
from llm4seg.training.run import Row
from llm4seg.utils.errors import InputError, UserError

GATE = {"model.llm.residual": "gate"}  # the block begins as nothing, so that a trial begins as the CNN


def trial_config(config: Config, overrides: Overrides) -> Config:
    """What a trial trains."""
    return config.override({**(GATE if config.search.warm_start else {}), **overrides})


class Trial(Trainable):
    """One trial after another: Tune resets it, its crew stays. A result is an epoch, or what made the trial fail."""

    def setup(
        self, config: dict[str, Any], params: dict[str, Any], name: str, data: DataSync | None, initial: str | None
    ) -> None:
        """`name`: the search's, with which those of its runs begin; `initial`: the run whose weights come first."""
        base = Config.parse(params)
        self._base = base if data is None else data.on_this_node(base)
        self._name, self._data, self._initial = name, data, initial
        self._crew: Crew | None = None
        self._results = self._all_results(config["overrides"])

    def step(self) -> dict[str, Any]:
        return next(self._results)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._results = self._all_results(new_config["overrides"])
        return True

    def cleanup(self) -> None:
        if self._crew is not None:
            self._crew.close()

    def _all_results(self, overrides: Overrides) -> Iterator[dict[str, Any]]:
        best, epochs = -1.0, self._base.training.epochs
        try:
            for row in self._rows(trial_config(self._base, overrides), self._run_of(overrides)):
                best = max(best, row["val_dice"])
                yield {**row, "best_dice": best, "done": row["epoch"] >= epochs}
        except UserError as error:  # a point that cannot be trained, or a training that failed for good
            yield {"error": str(error), "done": True}

    def _run_of(self, overrides: Overrides) -> str:
        """The name of a point's run, which no other point of the search has."""
        return f"{self._name}-train-{self._base.digest(extra=json.dumps(overrides, sort_keys=True))}"

    def _rows(self, config: Config, name: str) -> Iterator[Row]:
        """Every epoch once: first those of before the search was interrupted, then new ones as they end."""
        told = 0
        measure = len(config.search.objectives) > 1
        for row in () if measure else completed_epochs(config, name):  # what is measured rides along with new ones
            told = int(row["epoch"])
            yield row
        if told >= config.training.epochs:
            return
        crew = self._ready_crew(config)
        crew.start(config, name, self._data, {"initial": self._initial, "measure": measure})
        outcome: dict[str, Any] | None = None
        while outcome is None:
            news = crew.news()
            outcome = news.get("outcome")
            for row in news_rows(news):
                if row["epoch"] > told:
                    told = int(row["epoch"])
                    yield row
        if "error" in outcome:
            raise InputError(outcome["error"])

    def _ready_crew(self, config: Config) -> Crew:
        """The crew, free: whatever it was at, it leaves. A new one where the old one is lost, or does not fit."""
        if self._crew is not None:
            if self._crew.fits(config):
                self._crew.leave()
                return self._crew
            self._crew.close()
        self._crew = Crew(config, f"{self._name}-crew-{uuid.uuid4().hex[:8]}")
        return self._crew


def news_rows(news: dict[str, Any]) -> list[Row]:
    """The rows in a crew's news: one, or in the outcome all, of which some may be new."""
    if "row" in news:
        return [news["row"]]
    outcome = news["outcome"]
    return [row | outcome["facts"] for row in outcome.get("history", ())]


def completed_epochs(config: Config, name: str) -> list[Row]:
    """The epochs that a run had behind it when it was interrupted."""
    folder = RunFolder.at(storage(config), name)
    for checkpoint in folder.checkpoints():
        with folder.open(checkpoint, config.cluster.storage_patience) as files:
            try:
                return Checkpoint.read(files).progress.history
            except DamagedCheckpoint:  # as `fit` does: try the one before
                continue
    return []
