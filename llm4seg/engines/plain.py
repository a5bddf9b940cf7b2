"""Plain torch behind the Engine protocol: DistributedDataParallel in any process group, one worker or many."""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from llm4seg.engines.common import average_statistics, copied, lay_out
from llm4seg.models import Hybrid
from llm4seg.optim import build_optimizer, build_schedule
from llm4seg.sections import Engine as Section
from llm4seg.sections import Optimizer


class TorchEngine:
    """DistributedDataParallel with gradient accumulation and clipping, in DeepSpeed's verbs."""

    def __init__(self, model: Hybrid, optimizer: Optimizer, section: Section, steps: int, device: torch.device) -> None:
        self._model = model
        self._accumulation = section.accumulation
        self._clip_norm = optimizer.clip_norm
        lay_out(model.to(device), section)
        # BatchNorm statistics are averaged before evaluation; broadcasting rank 0's would drop the others'
        self._parallel = DistributedDataParallel(model, forward_sync_buffers=False)
        self._trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._optimizer = build_optimizer(self._trained, optimizer)
        self._schedule = build_schedule(self._optimizer, optimizer, steps)
        self._micro_batches = 0

    @property
    def lr(self) -> float:
        return float(self._optimizer.param_groups[0]["lr"])

    @property
    def _at_boundary(self) -> bool:
        return (self._micro_batches + 1) % self._accumulation == 0

    def __call__(self, images_NCS: Tensor) -> Tensor:
        # what DistributedDataParallel.no_sync sets: workers exchange gradients once an optimizer step
        self._parallel.require_backward_grad_sync = self._at_boundary
        logits: Tensor = self._parallel(images_NCS)
        return logits

    def train(self, mode: bool) -> None:
        if not mode:
            average_statistics(self._model)
        self._parallel.train(mode)

    def backward(self, loss: Tensor) -> None:
        (loss / self._accumulation).backward()

    def step(self) -> None:
        if self._at_boundary:
            if self._clip_norm is not None:
                clip_grad_norm_(self._trained, self._clip_norm)
            self._optimizer.step()
            self._schedule.step()
            self._optimizer.zero_grad()
        self._micro_batches += 1

    def weights(self) -> dict[str, Tensor]:
        return copied(self._model.weights())

    def save(self, folder: Path, state: dict[str, Any]) -> None:
        if dist.get_rank() == 0:
            parts = {
                "weights": self.weights(),
                "optimizer": self._optimizer.state_dict(),
                "schedule": self._schedule.state_dict(),
                "state": state,
            }
            torch.save(parts, folder / "engine.pt")

    def load(self, folder: Path) -> dict[str, Any]:
        parts = torch.load(folder / "engine.pt", map_location="cpu", weights_only=True)
        self._model.load_weights(parts["weights"])
        self._optimizer.load_state_dict(parts["optimizer"])
        self._schedule.load_state_dict(parts["schedule"])
        state: dict[str, Any] = parts["state"]
        return state
