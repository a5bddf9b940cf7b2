"""Workers that stay: a crew trains one run after another, so that only the first pays for processes and imports."""

import asyncio
import gc
import threading
from typing import Any

import ray
import torch
from ray.exceptions import RayActorError
from ray.train import Checkpoint, FailureConfig, RunConfig, TrainingFailedError, UserCallback, get_context
from ray.train.collective import broadcast_from_rank_zero

from llm4seg.cluster.data_sync import DataSync
from llm4seg.cluster.failures import TrainingFailed, first_fatal, root_cause, to_user_error
from llm4seg.cluster.launch import build_trainer, storage, worker
from llm4seg.cluster.stop_signal import StopSignal, on_this_node
from llm4seg.cluster.storage import RunFolder
from llm4seg.config import Config
from llm4seg.training.run import Row

Order = dict[str, Any]


class _Desk:
    """Where a crew finds its order, again if a worker died over it, and leaves news of it. An actor."""

    def __init__(self, retries: int) -> None:
        self._retries = retries
        self._order: Order | None = None
        self._open = True
        self._taken = 0
        self._failure = ""
        self._changed = asyncio.Condition()
        self._news: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def post(self, order: Order | None) -> None:
        """An order for the crew; None sends it home."""
        async with self._changed:
            self._order, self._open, self._taken = order, order is not None, 0
            self._changed.notify_all()

    async def take(self) -> Order | None:
        """The order that is not answered yet, as soon as there is one."""
        async with self._changed:
            while self._open and self._order is None:
                await self._changed.wait()
            if self._order is not None and self._taken > self._retries:
                told = f"a worker failed more often than cluster.max_failures = {self._retries} allows: {self._failure}"
                self._close(self._order["number"], {"error": told})
                while self._open and self._order is None:
                    await self._changed.wait()
            self._taken += 1
            return self._order

    async def answer(self, number: int, outcome: dict[str, Any]) -> None:
        async with self._changed:
            self._close(number, outcome)

    def _close(self, number: int, outcome: dict[str, Any]) -> None:
        self._news.put_nowait({"number": number, "outcome": outcome})
        self._order = None

    async def tell(self, number: int, row: Row) -> None:
        await self._news.put({"number": number, "row": row})

    async def give_up(self, line: str) -> None:
        """Answer the order with an error that would only come again; the crew waits for the next one."""
        async with self._changed:
            if self._order is not None:
                self._close(self._order["number"], {"error": line})

    async def failed(self, line: str) -> None:
        self._failure = line

    async def news(self, seconds: float) -> dict[str, Any] | None:
        """The next row or outcome; None if there is none for so long."""
        try:
            return await asyncio.wait_for(self._news.get(), seconds)
        except TimeoutError:
            return None


class _Tell(UserCallback):
    """Runs in Ray's controller."""

    def __init__(self, desk: Any) -> None:
        self._desk = desk

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None) -> None:
        if "epoch" in metrics[0]:  # not a checkpoint within one
            row = {name: value for name, value in metrics[0].items() if name not in ("said", "number")}
            self._desk.tell.remote(metrics[0]["number"], row)

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        if error := first_fatal(worker_exceptions.values()):
            self._desk.give_up.remote(str(error))
        else:
            self._desk.failed.remote(root_cause(worker_exceptions.values()))


def serve(posting: dict[str, Any]) -> dict[str, Any]:
    """What every worker of a crew runs: the same as in any training, one order after another."""
    desk, first = posting["desk"], get_context().get_world_rank() == 0
    while (order := broadcast_from_rank_zero(ray.get(desk.take.remote()) if first else None)) is not None:
        outcome = worker(order)
        if first:
            ray.get(desk.answer.remote(order["number"], outcome))
        gc.collect()  # the model is gone before the next one comes
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return {"history": [], "seconds": 0.0}


class Crew:
    """Workers of the `cluster` section, started once. One order at a time: `start`, then `news` until the outcome."""

    def __init__(self, config: Config, name: str) -> None:
        """`name`: of the folder in the storage where Ray keeps what it wants to know of them."""
        self._engine, self._retries = config.engine, config.cluster.max_failures
        self._folder = RunFolder.at(storage(config), name)
        self._stop_signal, self._number, self._busy, self._ended = StopSignal(), 0, False, ""
        options = {"num_cpus": 0, "scheduling_strategy": on_this_node()}
        self._desk: Any = ray.remote(**options)(_Desk).remote(self._retries)
        run_config = RunConfig(
            name=name,
            storage_path=storage(config),
            failure_config=FailureConfig(max_failures=-1),  # who counts is the desk, for each order anew
            callbacks=[_Tell(self._desk)],
        )
        trainer = build_trainer(config, serve, {"desk": self._desk}, run_config)
        self._thread = threading.Thread(target=self._work, args=(trainer,), daemon=True)
        self._thread.start()

    def _work(self, trainer: Any) -> None:
        try:
            trainer.fit()
            self._ended = "its workers went home"
        except (TrainingFailedError, RayActorError) as error:
            self._ended = str(to_user_error(error, self._retries))

    def fits(self, config: Config) -> bool:
        """Whether it is there, and can do this run as fresh workers would: another engine may have left its marks."""
        return not self._ended and config.engine == self._engine

    def start(self, config: Config, name: str, data: DataSync | None, more: dict[str, Any]) -> None:
        """Train a run under its name; it goes on from its last checkpoint if it has one."""
        assert not self._busy, "one order at a time"
        self._stop_signal, self._number, self._busy = self._stop_signal.new(), self._number + 1, True
        order = {
            "params": config.plain(),
            "stop_signal": self._stop_signal,
            "data": data,
            "run": name,
            "number": self._number,
        }
        ray.get(self._desk.post.remote(order | more))

    def news(self) -> dict[str, Any]:
        """The next `row` of the run, or its `outcome`, after which it is over. Raises TrainingFailed if all is lost."""
        while True:
            one = ray.get(self._desk.news.remote(1.0))
            if one is not None and one["number"] == self._number:
                self._busy = "outcome" not in one
                return dict(one)
            if one is None and self._ended:
                raise TrainingFailed(f"the training could not go on: {self._ended}")

    def leave(self) -> None:
        """Let the run under way, if there is one, save a checkpoint and end."""
        if self._busy and not self._ended:
            self._stop_signal.request_stop()
            while self._busy:
                self.news()

    def close(self) -> None:
        """Send the workers home."""
        self.leave()
        ray.get(self._desk.post.remote(None))
        self._thread.join()
        self._folder.forget()
