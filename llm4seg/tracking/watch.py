"""`watched`: tells the live history and the tracker of a training's events."""

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llm4seg.config import Config
from llm4seg.data.prepared import Prepared
from llm4seg.tracking.live_history import LiveHistory
from llm4seg.tracking.picture import draw_snapshot
from llm4seg.tracking.tracker import Tracker, build_tracker
from llm4seg.training.history import COLUMNS
from llm4seg.training.live import Live
from llm4seg.training.run import Event, Row
from llm4seg.utils.files import read_json, remove, write_json

log = logging.getLogger(__name__)

TRACKER = "tracker.json"


class Watch:
    """What is told of a training: events come in, each epoch goes on once, in order.

    An epoch that was told before an interruption, and is trained again after it, is passed over. What fails here says
    so once, and is left out from then on: it must not end a training.
    """

    def __init__(self, config: Config, name: str) -> None:
        self._config, self._data = config, Prepared(config.paths.prepared)
        self.folder = live_folder(config, name)
        self._live: Live | None = None
        self._history: LiveHistory | None = None
        self._tracker: Tracker | None = None
        self._guarded("the live history", self._open_history)
        self._guarded(f"tracking.to: {config.tracking.to}", self._open_tracker, name)

    def _open_history(self) -> None:
        patience = [] if self._config.training.patience is None else ["epochs_since_best"]
        classes = [f"val_dice_{name}" for name in self._data.classes]
        self._history = LiveHistory(self.folder, [*COLUMNS, *patience, *classes])

    def _open_tracker(self, name: str) -> None:
        """In the same run of the tracker as before an interruption: what says which lies beside the live history."""
        path, to = self.folder / TRACKER, self._config.tracking.to
        before = read_json(path) if path.exists() else {}
        resume = before["run"] if before.get("to") == to else None
        if (built := build_tracker(self._config, name, resume)) is not None:
            self._tracker = built[0]
            write_json(path, {"to": to, "run": built[1]})

    def begin(self, completed: Sequence[Row]) -> None:
        """Tell of the epochs in the checkpoint to go on from that were not told of: their process ended before."""
        for row in completed:
            self(row)

    def __call__(self, event: Event) -> None:
        """Take an event; log lines are passed over."""
        if isinstance(event, Live):
            self._live = event
        elif isinstance(event, dict) and self._history is not None and event["epoch"] > self._history.epochs:
            live = self._live if self._live is not None and self._live.epoch == event["epoch"] else None
            row = event | ({f"val_dice_{name}": dice for name, dice in live.dice.items()} if live else {})
            self._tell(row, self._drawn(live) if live else [])

    def _tell(self, row: Row, pictures: list[Path]) -> None:
        assert self._history is not None
        if not self._guarded("the live history", self._history.append, row):
            self._history = None
        if self._tracker is not None and not self._guarded(self._to, self._track, row, pictures):
            self._tracker = None

    @property
    def _to(self) -> str:
        return f"tracking.to: {self._config.tracking.to}"

    def _track(self, row: Row, pictures: list[Path]) -> None:
        assert self._tracker is not None
        self._tracker.row(row)
        for place, path in enumerate(pictures):
            self._tracker.picture(int(row["epoch"]), place, path)

    def _drawn(self, live: Live) -> list[Path]:
        """The pictures of an epoch, drawn beside the live history."""
        paths: list[Path] = []
        for place, snapshot in enumerate(live.snapshots):
            path = self.folder / f"epoch-{live.epoch:04d}-case-{place + 1}.png"
            title = f"{snapshot.case}, epoch {live.epoch}"
            # of data with a spacing the pixels have that, of others they count as square
            spacing = (1.0, 1.0) if self._data.spacing is None else self._data.spacing[:2]
            if self._guarded("a picture", draw_snapshot, path, snapshot, self._data.scheme, spacing, title):
                paths.append(path)
        return paths

    def close(self, finished: bool) -> None:
        """End the tracker; of a finished training, move the live history to `paths.tracking`."""
        if self._tracker is not None:
            self._guarded(self._to, self._tracker.close, finished)
        if finished:
            self._guarded("the live history", self._keep)

    def _keep(self) -> None:
        kept = self._config.paths.tracking / "finished" / self.folder.name
        remove(kept)
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(self.folder, kept)
        if not any(self.folder.parent.iterdir()):
            self.folder.parent.rmdir()

    def _guarded(self, what: str, work: Callable[..., None], *arguments: Any) -> bool:
        """Work that must not end a training; returns whether it was done."""
        try:
            work(*arguments)
        except Exception as error:
            line = " ".join(f"{type(error).__name__}: {error}".split())
            log.warning(f"train: {what} failed and is left out from here on: {line}")
            return False
        return True


def live_folder(config: Config, name: str) -> Path:
    """The folder of the live history of an unfinished training."""
    return config.paths.runs / "live" / name


@contextmanager
def watched(config: Config, name: str, completed: Sequence[Row]) -> Iterator[Watch]:
    """A `Watch` for the training of this name; `completed`: the rows of the checkpoint that it goes on from."""
    watch, finished = Watch(config, name), False
    try:
        watch.begin(completed)
        yield watch
        finished = True
    finally:
        watch.close(finished)
