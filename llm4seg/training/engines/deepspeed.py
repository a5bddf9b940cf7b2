"""DeepSpeed behind the Engine protocol: ZeRO 1 to 3, the frozen LLM layer offloaded under ZeRO 3."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llm4seg.config import Config
from llm4seg.models import Hybrid
from llm4seg.training.engines.accelerator import import_for
from llm4seg.training.engines.common import (
    ENTRY,
    STEP,
    BatchCounts,
    optimizer_state_keys,
    prepare,
    resume_schedule,
    schedule_state,
    trainable_parameters,
)
from llm4seg.training.engines.deepspeed_internals import gather, scatter, state_keys
from llm4seg.training.engines.nvme import check as check_nvme
from llm4seg.training.engines.offload import (
    Place,
    Sizes,
    dtype_of_matrices,
    nvme_block,
    offload_options,
    place_for,
    remarks,
    sizes,
)
from llm4seg.training.engines.transfer import to_cpu
from llm4seg.training.optim import build_optimizer, build_schedule
from llm4seg.training.run import Run
from llm4seg.utils.errors import Diverged


def deepspeed_config(
    config: Config, found: Sizes, place: Place, world_size: int, device: torch.device
) -> dict[str, Any]:
    """DeepSpeed's config dict, derived from the sections of params.yaml and the model."""
    engine, batch_size = config.engine, config.training.batch_size
    return {
        "train_micro_batch_size_per_gpu": batch_size // (world_size * engine.accumulation),  # where shares are equal
        "gradient_accumulation_steps": engine.accumulation,
        "gradient_clipping": config.optimizer.clip_norm or 0.0,
        "zero_optimization": zero_options(engine.zero, found, clips=config.optimizer.clip_norm is not None)
        | offload_options(found, place, config.cluster.nvme, world_size, device),
        "aio": {"block_size": nvme_block(found, world_size)},
        "zero_allow_untested_optimizer": True,  # SGD
        "zero_force_ds_cpu_optimizer": False,  # the torch optimizer is the same on every device
        "steps_per_print": 10**9,
        "timers": {"throughput": {"enabled": False}},  # which wait for the device twice a step
    }


def zero_options(stage: int, found: Sizes, clips: bool) -> dict[str, Any]:
    """ZeRO's options. By default its buffers alone would take 2 GB of each device."""
    options: dict[str, Any] = {"stage": stage, "reduce_bucket_size": found.trained}
    if stage in (1, 2):
        # no copy of each gradient into a buffer of its own, and no norm, of which only clipping makes use
        options |= {"contiguous_gradients": False, "compute_grad_norm": clips}
    if stage == 3:
        options |= {
            "stage3_param_persistence_threshold": found.threshold,
            # an LLM matrix leaves the device after its use, or nothing would be saved; if DeepSpeed had read it ahead,
            # it would stay there from the forward pass to the backward pass
            "stage3_max_reuse_distance": 0,
            "stage3_prefetch_bucket_size": 0,
        }
    return options


class DeepSpeedEngine:
    """A `deepspeed.initialize`d model. The process group must exist already."""

    def __init__(self, model: Hybrid, config: Config, steps: int, run: Run) -> None:
        os.environ.setdefault("LOCAL_RANK", str(run.local_rank))
        self._deepspeed = import_for(run.device)
        self._deepspeed.init_distributed(dist_backend=torch.distributed.get_backend(), auto_mpi_discovery=False)
        self._model, self._counts = model, BatchCounts(model)
        self._accumulation, self._micro_batches = config.engine.accumulation, 0
        prepare(model, config.engine, run.device)
        self._trained = trainable_parameters(model)
        options = self._options(config, run)
        if config.engine.zero == 3:
            self._partition(options, run.device)
        model.to(run.device)  # under ZeRO 3 only buffers remain to be moved
        self._engine, self._optimizer, _, _ = self._deepspeed.initialize(
            model=model,
            optimizer=build_optimizer(self._trained.values(), config.optimizer),
            lr_scheduler=lambda optimizer: build_schedule(optimizer, config.optimizer, steps),
            config=options,
        )

    def _options(self, config: Config, run: Run) -> dict[str, Any]:
        """DeepSpeed's config for this model, before it is partitioned; logs where its LLM matrices are placed."""
        found, wanted = sizes(self._model), config.engine.offload
        place = place_for(wanted, found, run.device, config.cluster.nvme, run.world_size)
        if run.rank == 0:
            for line in remarks(wanted, place, found, run.device, run.world_size):
                run.log(line)
        return deepspeed_config(config, found, place, run.world_size, run.device)

    def _partition(self, options: dict[str, Any], device: torch.device) -> None:
        """Partition the parameters from where they are, one by one: the device never holds more than one unpartitioned.

        `initialize` alone would first move the whole model there.
        """
        dtype = dtype_of_matrices(self._model)  # of the buffers through which they go to NVMe
        moved = options["zero_optimization"].get("offload_param", {})
        if moved.get("device") == "nvme":
            buffers = moved["buffer_size"] * moved["buffer_count"] * dtype.itemsize
            check_nvme(Path(moved["nvme_path"]), buffers, device)
        # None: DeepSpeed's default, float32; if this is passed, it takes another type on the CPU
        buffer_dtype = None if dtype == torch.float32 else dtype
        self._deepspeed.zero.Init(module=self._model, config_dict_or_path=options, dtype=buffer_dtype)

    @property
    def lr(self) -> float:
        return float(self._engine.get_lr()[0])

    def __call__(self, images_NCS: Tensor) -> Tensor | list[Tensor]:
        logits: Tensor | list[Tensor] = self._engine(images_NCS)
        return logits

    def train(self, mode: bool) -> None:
        self._engine.train(mode)

    def backward(self, loss: Tensor) -> None:
        self._engine.backward(loss)

    @property
    def at_boundary(self) -> bool:
        return (self._micro_batches + 1) % self._accumulation == 0

    @property
    def capturable(self) -> bool:
        return False

    def graph_refusal(self) -> str | None:
        return "engine.name is deepspeed"

    def update(self) -> None:
        self._engine.step()  # and the schedule's
        # ZeRO 3, and 1 and 2 where they clip, would leave the step out and say nothing, again and again
        if getattr(self._optimizer, "overflow", False):
            raise Diverged(f"a gradient is not finite in optimizer step {self._engine.global_steps}")

    def advance(self) -> None:
        if not self.at_boundary:
            self._engine.step()  # counts the micro-batch
        self._micro_batches += 1
        self._counts.add()

    def trainable_state_dict(self) -> dict[str, Tensor]:
        self._counts.write()
        names = self._model.trainable_state_dict().keys()
        kept = [parameter for name, parameter in self._model.named_parameters() if name in names]
        with self._deepspeed.zero.GatheredParameters(kept):  # ZeRO 3 keeps a part on each worker
            return to_cpu(self._model.trainable_state_dict())

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        state = {STEP: torch.tensor(self._engine.global_steps)}
        for key in state_keys(self._optimizer):
            values = gather(self._optimizer, list(self._trained.values()), key)
            for name, value in zip(self._trained, values, strict=True):
                state[ENTRY.format(key=key, name=name)] = value
        return to_cpu(state), schedule_state(self._engine.lr_scheduler)

    def resume(self, optimizer_state: dict[str, Tensor], schedule: dict[str, Any]) -> None:
        state, keys = {}, optimizer_state_keys(optimizer_state)
        for name, parameter in self._trained.items():
            state[parameter] = {key: optimizer_state[ENTRY.format(key=key, name=name)] for key in keys}
        scatter(self._optimizer, state, optimizer_state[STEP].float())
        self._engine.global_steps = int(optimizer_state[STEP])
        resume_schedule(self._engine.lr_scheduler, self._optimizer.param_groups, schedule)
