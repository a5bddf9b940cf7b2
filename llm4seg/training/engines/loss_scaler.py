"""The scale of the loss under fp16, whose gradients would vanish or overflow: torch's, with a state to resume from."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer

SCALE, GROWTH, SKIPPED = "loss_scale", "steps_since_overflow", "skipped_steps"


class LossScaler:
    """Scales losses and skips optimizer steps whose gradients are not finite; the host waits for the device only in
    `state`.

    The optimizer must be a fused one: it decides on the device whether it steps, and its own count of steps leaves the
    skipped ones out.
    """

    def __init__(self, optimizer: Optimizer, device: torch.device) -> None:
        self._scaler = GradScaler(device.type)
        self._optimizer = optimizer
        self._skipped = torch.zeros((), dtype=torch.float64, device=device)
        optimizer.register_step_pre_hook(partial(_count, self._skipped))  # without a cycle of references

    def scale(self, loss: Tensor) -> Tensor:
        return self._scaler.scale(loss)

    def step(self, clip: Callable[[], None]) -> None:
        """Unscale the optimizer's gradients, clip them, step and adapt the scale."""
        self._scaler.unscale_(self._optimizer)
        clip()
        self._scaler.step(self._optimizer)
        self._scaler.update()

    def state(self) -> dict[str, Tensor]:
        found = self._scaler.state_dict()
        return {
            SCALE: torch.tensor(found["scale"]),
            GROWTH: torch.tensor(found["_growth_tracker"]),
            SKIPPED: self._skipped.long(),
        }

    def resume(self, state: dict[str, Tensor]) -> None:
        values = {"scale": float(state[SCALE]), "_growth_tracker": int(state[GROWTH])}
        self._scaler.load_state_dict(self._scaler.state_dict() | values)
        self._skipped.fill_(int(state[SKIPPED]))


def _count(skipped: Tensor, optimizer: Any, *_: Any) -> None:
    """Count a step that is skipped: before a step of an optimizer."""
    # 1 where a gradient is not finite: the scaler lends it to the optimizer for the time of a step
    skipped.add_(optimizer.found_inf)
