"""Plain torch behind the Engine protocol, on one worker or many."""

import warnings
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from llm4seg.config import Config
from llm4seg.models import Hybrid
from llm4seg.runtime.collectives import world_size
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
from llm4seg.training.engines.flat import FlatParameters
from llm4seg.training.engines.loss_scaler import SKIPPED, LossScaler
from llm4seg.training.engines.transfer import to_cpu
from llm4seg.training.optim import build_host_schedule, build_optimizer, lr_tensor


class TorchEngine:
    """Gradient accumulation, averaging over workers, clipping and a loss scale under fp16, in DeepSpeed's verbs.

    On one worker it computes the bits of DeepSpeed's ZeRO 1 and 2, except where gradients are clipped: DeepSpeed adds
    their norm up in another order and divides where torch multiplies, so that a clipped step differs in the last bits.
    """

    def __init__(self, model: Hybrid, config: Config, steps: int, device: torch.device) -> None:
        section, optimizer = config.engine, config.optimizer
        self._model, self._config = model, config
        self._accumulation = section.accumulation
        self._clip_norm = optimizer.clip_norm
        prepare(model, section, device)
        model.to(device)
        self._trained = trainable_parameters(model)
        self._flat = FlatParameters(self._trained.values())
        if world_size() > 1:  # seeded alike; but another kind of processor may have rounded otherwise
            dist.broadcast(self._flat.parameter.detach(), 0)
        self._lr = lr_tensor(optimizer, device)
        # steps before a capture are steps, too
        warnings.filterwarnings("ignore", message="This instance was constructed with capturable=True")
        self._optimizer = build_optimizer([self._flat.parameter], optimizer, self._lr)
        if optimizer.name == "sgd" and optimizer.momentum:
            # at its first step torch would allocate without filling, and under fp16 that step may be skipped
            self._state["momentum_buffer"] = torch.zeros_like(self._flat.parameter)
        self._scaler = LossScaler(self._optimizer, device) if section.precision == "fp16" else None
        self._schedule = build_host_schedule(optimizer, steps)
        self._set_lr()
        self._micro_batches = 0
        self._counts = BatchCounts(model)

    @property
    def lr(self) -> float:
        return float(self._schedule.get_last_lr()[0])

    @property
    def at_boundary(self) -> bool:
        return (self._micro_batches + 1) % self._accumulation == 0

    @property
    def capturable(self) -> bool:
        return self.graph_refusal() is None

    def graph_refusal(self) -> str | None:
        if self._config.engine.compile:
            return "engine.compile is true"
        if self._config.model.bottleneck != "identity" and self._config.model.llm.checkpointing:
            return "model.llm.checkpointing is true"
        if world_size() > 1 and dist.get_backend() != "nccl":
            return f"workers exchange gradients by {dist.get_backend()}"
        return None

    def __call__(self, images_NCS: Tensor) -> Tensor | list[Tensor]:
        logits: Tensor | list[Tensor] = self._model(images_NCS)
        return logits

    def train(self, mode: bool) -> None:
        self._model.train(mode)

    def backward(self, loss: Tensor) -> None:
        if self._accumulation > 1:
            loss = loss / self._accumulation
        if self._scaler is not None:
            loss = self._scaler.scale(loss)
        loss.backward()

    def update(self) -> None:
        gradients = self._flat.collect_gradients()
        if world_size() > 1:
            gradients.mul_(1 / world_size())  # before the sum, as DistributedDataParallel does
            dist.all_reduce(gradients)
        if self._scaler is None:
            self._clip()
            self._optimizer.step()
        else:
            self._scaler.step(self._clip)
        self._flat.parameter.grad = None

    def _clip(self) -> None:
        if self._clip_norm is not None:
            assert self._flat.parameter.grad is not None
            norm = get_total_norm(self._flat.views(self._flat.parameter.grad))
            clip_grads_with_norm_([self._flat.parameter], self._clip_norm, norm)

    def advance(self) -> None:
        if self.at_boundary:
            self._schedule.step()
            self._set_lr()
        self._micro_batches += 1
        self._counts.add()

    def _set_lr(self) -> None:
        self._lr.fill_(self.lr)

    @property
    def _state(self) -> dict[str, Tensor]:
        """The optimizer's state of the flat parameter."""
        state: dict[str, Tensor] = self._optimizer.state[self._flat.parameter]
        return state

    def trainable_state_dict(self) -> dict[str, Tensor]:
        self._counts.write()
        return to_cpu(self._model.trainable_state_dict())

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        state = {STEP: torch.tensor(self._micro_batches // self._accumulation)}
        for key, flat in self._state.items():
            if key != STEP:
                for name, value in zip(self._trained, self._flat.views(flat), strict=True):
                    state[ENTRY.format(key=key, name=name)] = value
        if self._scaler is not None:
            state |= self._scaler.state()
        return to_cpu(state), schedule_state(self._schedule)

    def resume(self, optimizer_state: dict[str, Tensor], schedule: dict[str, Any]) -> None:
        device, steps = self._flat.parameter.device, int(optimizer_state[STEP])
        for key in optimizer_state_keys(optimizer_state):
            values = (optimizer_state[ENTRY.format(key=key, name=name)].to(device) for name in self._trained)
            self._state[key] = self._flat.flatten(values)
        skipped = 0
        if self._scaler is not None:
            self._scaler.resume(optimizer_state)
            skipped = int(optimizer_state[SKIPPED])
        self._state[STEP] = torch.tensor(float(steps - skipped), device=device)
        self._micro_batches = steps * self._accumulation
        resume_schedule(self._schedule, self._schedule.optimizer.param_groups, schedule)
        self._set_lr()
