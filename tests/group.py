"""Several training processes on this machine without a cluster: what `fit` computes on a number of workers."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from llm4seg.config import Config
from llm4seg.run import Row

ROOT = Path(__file__).parents[1]


def fit_on(workers: int, config: Config, folder: Path, stop_after: int | None = None) -> list[Row]:
    """Train `config` on some workers that share nothing but a gloo group; checkpoints go to `folder`.

    `stop_after`: leave with a checkpoint after that many optimizer steps; what is returned is then empty.
    """
    params = config.override({"cluster.workers": [1, workers]}).plain()
    with tempfile.TemporaryDirectory() as meeting:
        order = {"params": params, "folder": str(folder), "workers": workers, "stop": stop_after}
        (Path(meeting) / "order.json").write_text(json.dumps(order))
        started = [_start(rank, workers, meeting) for rank in range(workers)]
        ended = [process.communicate(timeout=240)[0] for process in started]
    assert all(process.returncode == 0 for process in started), f"exit codes {[p.returncode for p in started]}"
    return list(json.loads(ended[0].splitlines()[-1]))


def _start(rank: int, workers: int, meeting: str) -> "subprocess.Popen[str]":
    environment = os.environ | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(workers)}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.group", meeting]
    return subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def main() -> None:
    """One worker: reads its orders from the meeting place, prints its history as the last line."""
    import torch
    import torch.distributed as dist

    from llm4seg.errors import Left
    from llm4seg.run import GO_ON, LEAVE, LocalRun
    from llm4seg.train import fit

    meeting = Path(sys.argv[1])
    order = json.loads((meeting / "order.json").read_text())
    torch.set_num_threads(1)

    class GroupRun(LocalRun):
        rank = int(os.environ["RANK"])
        local_rank = rank
        world_size = order["workers"]
        steps = 0

        def report(self, row: Row | None, save: Any) -> None:
            if self.rank == 0:
                super().report(row, save)
            dist.barrier()

        def asks(self) -> int:
            self.steps += 1
            return LEAVE if self.steps == order["stop"] else GO_ON

    store = dist.FileStore(str(meeting / "group"), GroupRun.world_size)
    dist.init_process_group("gloo", store=store, rank=GroupRun.rank, world_size=GroupRun.world_size)
    try:
        history = fit(Config.parse(order["params"]), GroupRun(Path(order["folder"])))
    except Left:
        history = []
    print(json.dumps(history), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
