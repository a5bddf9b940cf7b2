"""A trial of a search: the training of `train` with some parameters overridden, in a reused process."""

import json
from collections.abc import Generator
from contextlib import closing
from typing import Any

from llm4seg.cluster.data_sync import DataSync
from llm4seg.cluster.runs import completed_epochs
from llm4seg.cluster.trials import KeptTrial, check_storage_is_shared, training_rows
from llm4seg.config import Config
from llm4seg.config.schema import Overrides
from llm4seg.training.run import Row
from llm4seg.utils.errors import UserError

GATE = {"model.llm.residual": "gate"}  # the LLM block starts as zero, so that a trial starts as the CNN


def trial_config(config: Config, overrides: Overrides) -> Config:
    """The config of a trial."""
    return config.override({**(GATE if config.search.warm_start else {}), **overrides})


class Trial(KeptTrial):
    """The trial of a search; its results are rows of epochs, or the error that ended the trial."""

    def setup(
        self, config: dict[str, Any], params: dict[str, Any], name: str, data: DataSync | None, initial: str | None
    ) -> None:
        """`name`: the name of the search, a prefix of its runs' names; `initial`: the run with the initial weights."""
        base = Config.parse(params)
        check_storage_is_shared(base, name)
        self._base = base if data is None else data.on_this_node(base)
        self._name, self._data, self._initial = name, data, initial
        self.begin(config)

    def results(self, sample: dict[str, Any]) -> Generator[dict[str, Any], None, None]:
        best, epochs, overrides = -1.0, self._base.training.epochs, sample["overrides"]
        try:
            config = trial_config(self._base, overrides)
            with closing(epoch_rows(config, self._run_name(overrides), self._data, self._initial)) as rows:
                for row in rows:
                    best = max(best, row["val_dice"])
                    yield {**row, "best_dice": best, "done": row["epoch"] >= epochs}
        except UserError as error:  # a point that cannot be trained
            yield {"error": str(error), "done": True}

    def _run_name(self, overrides: Overrides) -> str:
        """The name of the run of a point, unique in the search."""
        return f"{self._name}-train-{self._base.digest(extra=json.dumps(overrides, sort_keys=True))}"


def epoch_rows(config: Config, name: str, data: DataSync | None, initial: str | None) -> Generator[Row, None, None]:
    """The row of each epoch, once: first the epochs before an interruption, then new epochs as they end."""
    measure = len(config.search.objectives) > 1  # the measurements come with the first new row
    seen, completed = 0, completed_epochs(config, name)
    if not measure:
        yield from completed
        seen = len(completed)
        if seen == config.training.epochs:
            return
    with closing(training_rows(config, name, data, initial, measure)) as training:
        for row in training:
            for measured in (*({**row, **before} for before in completed), row):
                if measured["epoch"] > seen:
                    seen = int(measured["epoch"])
                    yield measured
