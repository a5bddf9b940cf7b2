"""Plain torch behind the Engine protocol: DistributedDataParallel in any process group, one worker or many."""

import warnings
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from llm4seg.config.schema import EngineConfig, OptimizerConfig
from llm4seg.models import Hybrid
from llm4seg.training.engines.common import (
    ENTRY,
    STEP,
    optimizer_state_keys,
    prepare,
    resume_schedule,
    schedule_state,
    to_cpu,
    trainable_parameters,
)
from llm4seg.training.optim import build_optimizer, build_schedule


class TorchEngine:
    """DistributedDataParallel with gradient accumulation and clipping, in DeepSpeed's verbs.

    On one worker it computes the bits of DeepSpeed's ZeRO 0 to 2, except where gradients are clipped: DeepSpeed adds
    their norm up in another order and divides where torch multiplies, so that a clipped step differs in the last bits.
    """

    def __init__(
        self, model: Hybrid, optimizer: OptimizerConfig, section: EngineConfig, steps: int, device: torch.device
    ) -> None:
        self._model = model
        self._accumulation = section.accumulation
        self._clip_norm = optimizer.clip_norm
        prepare(model, section, device)
        model.to(device)
        # layouts of one-channel kernels differ in strides that nothing depends on
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        # BatchNorm sees all workers' samples, so its statistics are the same on each without being sent
        self._parallel = DistributedDataParallel(model, forward_sync_buffers=False)
        self._trained = trainable_parameters(model)
        self._optimizer = build_optimizer(self._trained.values(), optimizer)
        self._schedule = build_schedule(self._optimizer, optimizer, steps)
        self._micro_batches = 0

    @property
    def lr(self) -> float:
        return float(self._optimizer.param_groups[0]["lr"])

    @property
    def _at_boundary(self) -> bool:
        return (self._micro_batches + 1) % self._accumulation == 0

    def __call__(self, images_NCS: Tensor) -> Tensor | list[Tensor]:
        # what DistributedDataParallel.no_sync sets: workers exchange gradients once an optimizer step
        self._parallel.require_backward_grad_sync = self._at_boundary
        logits: Tensor | list[Tensor] = self._parallel(images_NCS)
        return logits

    def train(self, mode: bool) -> None:
        self._parallel.train(mode)

    def backward(self, loss: Tensor) -> None:
        (loss / self._accumulation).backward()

    def step(self) -> None:
        if self._at_boundary:
            if self._clip_norm is not None:
                clip_grad_norm_(self._trained.values(), self._clip_norm)
            self._optimizer.step()
            self._schedule.step()
            self._optimizer.zero_grad()
        self._micro_batches += 1

    def trainable_state_dict(self) -> dict[str, Tensor]:
        return to_cpu(self._model.trainable_state_dict())

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        state = {STEP: torch.tensor(self._micro_batches // self._accumulation)}
        for name, parameter in self._trained.items():
            for key, value in self._optimizer.state[parameter].items():
                if key != STEP:
                    state[ENTRY.format(key=key, name=name)] = value
        return to_cpu(state), schedule_state(self._schedule)

    def resume(self, optimizer_state: dict[str, Tensor], schedule: dict[str, Any]) -> None:
        keys = optimizer_state_keys(optimizer_state)
        for name, parameter in self._trained.items():
            state = {STEP: optimizer_state[STEP].float()}
            for key in keys:
                state[key] = optimizer_state[ENTRY.format(key=key, name=name)].to(parameter.device, copy=True)
            self._optimizer.state[parameter] = state
        self._micro_batches = int(optimizer_state[STEP]) * self._accumulation
        resume_schedule(self._schedule, self._optimizer.param_groups, schedule)
