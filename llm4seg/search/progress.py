"""Progress of a search: a table that is refreshed on a terminal, elsewhere a line per ended trial."""

import logging
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial
from rich.console import Console
from rich.live import Live
from rich.table import Table

from llm4seg.config.schema import Search
from llm4seg.utils.logs import is_quiet

log = logging.getLogger(__name__)

SHOWN = 12  # trials in the table: running trials and the best ended trials


class TrialProgress(Callback):
    """Callback of Tune that shows running trials and the best ended trials."""

    def __init__(self, section: Search) -> None:
        self._section = section
        self._live: Live | None = None

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        self._refresh(trials)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        self._ended(trials, trial)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        self._ended(trials, trial)

    def on_experiment_end(self, trials: list[Trial], **_: Any) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _ended(self, trials: list[Trial], trial: Trial) -> None:
        if not Console().is_terminal:
            # Tune calls this while the trial is not finished yet
            ended = sum(other.is_finished() for other in trials if other is not trial) + 1
            log.info(f"search: {ended}/{self._section.trials}  {'  '.join(self._cells(trials, trial, True))}")
        self._refresh(trials)

    def _refresh(self, trials: list[Trial]) -> None:
        if is_quiet() or not Console().is_terminal:
            return
        if self._live is None:
            self._live = Live(auto_refresh=False)
            self._live.start()
        self._live.update(self._table(trials), refresh=True)

    def _table(self, trials: list[Trial]) -> Table:
        ended = sum(trial.is_finished() for trial in trials)
        table = Table(title=f"search: {ended} of at most {self._section.trials} trials")
        for heading in ("trial", "state", "epoch", "val Dice", "values"):
            table.add_column(heading)
        shown = sorted(trials, key=lambda trial: (trial.is_finished(), -_dice(trial)))[:SHOWN]
        for trial in shown:
            table.add_row(*self._cells(trials, trial, trial.is_finished()))
        return table

    def _cells(self, trials: list[Trial], trial: Trial, ended: bool) -> list[str]:
        values = ", ".join(f"{name.rsplit('.', 1)[-1]} {_format(value)}" for name, value in _overrides(trial).items())
        epoch = f"{trial.last_result.get('epoch', 0)}/{self._section.epochs}"
        return [
            f"trial {trials.index(trial)}",
            self._state(trial, ended),
            epoch,
            f"{max(0.0, _dice(trial)):.4f}",
            values,
        ]

    def _state(self, trial: Trial, ended: bool) -> str:
        if trial.status == Trial.ERROR or "error" in trial.last_result:
            return f"failed: {trial.last_result.get('error', 'its process died')}"
        if trial.last_result.get("epoch", 0) >= self._section.epochs:
            return "finished"
        return "stopped early" if ended else trial.status.lower()

    def __getstate__(self) -> dict[str, Any]:
        return {"_section": self._section, "_live": None}


def _format(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _dice(trial: Trial) -> float:
    return float(trial.last_result.get("best_dice", -1.0))


def _overrides(trial: Trial) -> dict[str, Any]:
    return dict(trial.config.get("overrides", {}))
