"""What a training step really holds on the CPU: every storage that Python can reach, on any number of processes."""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from llm4seg.config import Config

ROOT = Path(__file__).parents[1]


def held_on(workers: int, config: Config, meeting: Path) -> dict[str, int]:
    """Bytes of one worker: `state` after a step, `gradients` beside it while the optimizer steps, `optimizer`."""
    meeting.mkdir()
    (meeting / "params.json").write_text(json.dumps(config.override({"cluster.workers": workers}).plain()))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "WORLD_SIZE": str(workers)}
    command = [sys.executable, "-m", "tests.held", str(meeting)]
    ranks = [environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(workers)]
    started = [subprocess.Popen(command, env=one, cwd=ROOT, stdout=subprocess.PIPE, text=True) for one in ranks]
    ended = [process.communicate()[0] for process in started]
    assert all(process.returncode == 0 for process in started)
    return dict(json.loads(ended[0].splitlines()[-1]))


def reachable() -> int:
    """Bytes of all storages; a gradient that only C++ holds is found through its parameter."""
    import torch

    storages: dict[int, int] = {}
    for one in gc.get_objects():
        if issubclass(type(one), torch.Tensor) and not one.is_meta:
            for tensor in (one, one.grad if one.is_leaf else None):
                if tensor is not None:
                    storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return sum(storages.values())


def main() -> None:
    """One worker: two steps, the second one measured; prints the bytes as its last line."""
    import torch
    import torch.distributed as dist

    from llm4seg.run import LocalRun
    from llm4seg.train import Trainer

    meeting, rank, workers = Path(sys.argv[1]), int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(1)
    store = dist.FileStore(str(meeting / "group"), workers)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=workers)
    config, run = Config.parse(json.loads((meeting / "params.json").read_text())), LocalRun(meeting / "run")
    run.rank, run.local_rank, run.world_size = rank, rank, workers
    before = reachable()
    trainer: Any = Trainer(config, run)
    optimizer = getattr(trainer.engine._optimizer, "optimizer", trainer.engine._optimizer)
    moments: list[int] = []
    optimizer.register_step_pre_hook(lambda *_: moments.append(reachable()))
    images = torch.zeros(config.training.batch_size // workers, trainer.data.channels, *trainer.data.size)
    inputs = images.nbytes
    trainer.engine.train(True)
    for _ in range(2):
        trainer.engine.backward(trainer.engine(images).square().mean())
        trainer.engine.step()
    gc.collect()
    state = reachable() - inputs
    slots = [value for values in optimizer.state.values() for value in values.values() if torch.is_tensor(value)]
    found = {
        "state": state - before,
        "gradients": moments[-1] - inputs - state,
        "optimizer": sum(slot.nbytes for slot in slots if slot.ndim),
    }
    print(json.dumps(found), flush=True)
    dist.barrier()


if __name__ == "__main__":
    main()
