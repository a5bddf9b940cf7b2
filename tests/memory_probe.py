"""The memory of a training step on the CPU: every storage that Python can reach, on any number of processes."""

import gc
from pathlib import Path
from typing import Any

import torch

from llm4seg.config import Config
from llm4seg.training.trainer import Trainer
from tests.worker_group import GroupRun, on_group


def held_on(workers: int, config: Config, folder: Path) -> dict[str, int]:
    """Bytes of one worker: `state` after a step, `gradients` beside it while the optimizer steps, `optimizer`."""
    params = config.override({"cluster.workers": workers}).plain()
    return dict(on_group(workers, _held, workers, params, folder)[0])


def reachable() -> int:
    """Bytes of all storages; a gradient that only C++ holds is found through its parameter."""
    storages: dict[int, int] = {}
    for one in gc.get_objects():
        if issubclass(type(one), torch.Tensor) and not one.is_meta:
            for tensor in (one, one.grad if one.is_leaf else None):
                if tensor is not None:
                    storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return sum(storages.values())


def _held(rank: int, workers: int, params: dict[str, Any], folder: Path) -> dict[str, int]:
    """One worker: two steps, the second one measured."""
    config, before = Config.parse(params), reachable()
    trainer: Any = Trainer(config, GroupRun(rank, workers, folder))
    optimizer = getattr(trainer.engine._optimizer, "optimizer", trainer.engine._optimizer)
    moments: list[int] = []
    optimizer.register_step_pre_hook(lambda *_: moments.append(reachable()))
    images = torch.zeros(config.training.batch_size // workers, trainer.data.channels, *trainer.data.size)
    inputs = images.nbytes
    trainer.engine.train(True)
    for _ in range(2):
        trainer.engine.backward(trainer.engine(images).square().mean())
        trainer.engine.update()
        trainer.engine.advance()
    gc.collect()
    state = reachable() - inputs
    states = [value for values in optimizer.state.values() for value in values.values() if torch.is_tensor(value)]
    return {
        "state": state - before,
        "gradients": moments[-1] - inputs - state,
        "optimizer": sum(value.nbytes for value in states if value.ndim),
    }
