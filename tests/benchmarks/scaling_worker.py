"""One training process of the benchmark `scaling`: waits for its turn, and then trains, exchanges or counts.

Asked by a line on its standard input; answers with a line of JSON. While it waits it takes no processor time.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llm4seg.config import Config

ROOT = Path(__file__).parents[2]
ANSWER = "answer "


class Group:
    """Some workers with some threads each, that share a gloo group and train one config."""

    def __init__(self, config: Config, workers: int, threads: int, meeting: Path) -> None:
        meeting.mkdir()
        params = config.override({"cluster.workers": [1, workers]}).plain()
        (meeting / "order.json").write_text(json.dumps({"params": params, "workers": workers, "threads": threads}))
        self.workers, self.threads = workers, threads
        self._processes = [self._start(rank, meeting) for rank in range(workers)]

    def _start(self, rank: int, meeting: Path) -> "subprocess.Popen[str]":
        environment = os.environ | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(self.workers)}
        environment |= {"OMP_NUM_THREADS": str(self.threads)}
        command = [sys.executable, "-m", "tests.benchmarks.scaling_worker", str(meeting)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        return subprocess.Popen(command, env=environment, cwd=ROOT, text=True, **pipes)  # type: ignore[call-overload,no-any-return]

    def ask(self, what: str, number: int) -> Any:
        """The first worker's answer, once all have answered."""
        for process in self._processes:
            assert process.stdin
            process.stdin.write(f"{what} {number}\n")
            process.stdin.flush()
        first, *_ = [_answer(process) for process in self._processes]
        return first

    def end(self) -> None:
        for process in self._processes:
            assert process.stdin
            process.stdin.close()
        for process in self._processes:
            process.wait()


def _answer(process: "subprocess.Popen[str]") -> Any:
    assert process.stdout
    for line in process.stdout:
        if line.startswith(ANSWER):
            return json.loads(line.removeprefix(ANSWER))
    raise SystemExit(f"a worker ended with exit code {process.wait()}")


class Member:
    """What one process does when it is asked."""

    def __init__(self, order: dict[str, Any], folder: Path) -> None:
        from llm4seg.training.run import LocalRun
        from llm4seg.training.trainer import Trainer

        class MemberRun(LocalRun):
            rank = local_rank = int(os.environ["RANK"])
            world_size = order["workers"]

        self._trainer = Trainer(Config.parse(order["params"]), MemberRun(folder / "none"))
        self._trainer.engine.train(True)
        self._step = 0

    def train(self, steps: int) -> float:
        """Median seconds of an optimizer step."""
        from llm4seg.data.batches import epoch_order

        trainer, section, took = self._trainer, self._trainer.config.training, list[float]()
        for epoch in range(math.ceil(steps / trainer.steps)):
            order = epoch_order(len(trainer.split.train), section.batch_size, section.seed, epoch)
            with trainer.feed.epoch(epoch, order[: steps - len(took)]):
                for _ in range(min(trainer.steps, steps - len(took))):
                    began = time.perf_counter()
                    trainer.train_step(0, self._step)
                    trainer.step_loss.item()
                    trainer.control.poll()  # as `fit` does after each step
                    took.append(time.perf_counter() - began)
                    self._step += 1
        return statistics.median(took)

    def exchange(self, size: int) -> float:
        """Median seconds of a sum over workers of so many bytes."""
        import torch
        import torch.distributed as dist

        tensor, took = torch.zeros(size // 4), []
        for _ in range(max(7, min(200, 2**24 // size))):
            dist.barrier()
            began = time.perf_counter()
            dist.all_reduce(tensor)
            took.append(time.perf_counter() - began)
        return statistics.median(took)

    def count(self, steps: int) -> dict[str, list[int]]:
        """Exchanges of one optimizer step by kind: how many, and how many numbers each worker put into them."""
        from torch.profiler import ProfilerActivity, profile

        self.train(steps)
        with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
            self.train(1)
        found: dict[str, list[int]] = {}
        for event in profiler.events():
            if event.name.startswith("gloo:"):
                counted = found.setdefault(event.name.removeprefix("gloo:"), [0, 0])
                counted[0] += 1
                counted[1] += math.prod(event.input_shapes[0])
        return found


@contextmanager
def group(meeting: Path, workers: int) -> Iterator[None]:
    import torch.distributed as dist

    store = dist.FileStore(str(meeting / "group"), workers)
    dist.init_process_group("gloo", store=store, rank=int(os.environ["RANK"]), world_size=workers)
    yield
    dist.destroy_process_group()


def main() -> None:
    import torch

    meeting = Path(sys.argv[1])
    order = json.loads((meeting / "order.json").read_text())
    torch.set_num_threads(order["threads"])
    with group(meeting, order["workers"]):
        member = Member(order, meeting)
        turns: dict[str, Callable[[int], Any]] = {
            "train": member.train,
            "exchange": member.exchange,
            "count": member.count,
        }
        for line in sys.stdin:
            what, number = line.split()
            print(ANSWER + json.dumps(turns[what](int(number))), flush=True)


if __name__ == "__main__":
    main()
