"""Functions of both engines."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from llm4seg.config.schema import EngineConfig
from llm4seg.models import Hybrid
from llm4seg.models.bottleneck.precast import precast_frozen
from llm4seg.runtime.batchnorm import convert_batchnorm, count_batches
from llm4seg.runtime.determinism import check_deterministic
from llm4seg.runtime.seeding import set_deterministic

ENTRY = "{key}/{name}"  # a tensor of the optimizer's state by torch's key for it and the parameter's name
STEP = "step"
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}  # the dtypes of autocast by engine.precision


def prepare(model: Hybrid, section: EngineConfig, device: torch.device) -> None:
    """Set a model's memory format, precision, BatchNorm and compilation for training; it is not moved to the device."""
    set_deterministic(device, section.precision == "tf32", section.deterministic, training=True)
    convert_batchnorm(model)
    model.mixed_precision = section.precision in HALF
    model.autocast_dtype = HALF.get(section.precision, torch.bfloat16)
    if section.channels_last:
        # by the images. The weights keep their own memory format, since DeepSpeed needs them contiguous
        model.encoder.register_forward_pre_hook(_channels_last)
    if section.precision in HALF and section.zero != 3:  # stage 3 gathers weights by their dtype
        precast_frozen(model, HALF[section.precision])
    if section.deterministic and device.type == "cuda":
        check_deterministic(model)
    if section.compile:
        model.compile()


def _channels_last(module: nn.Module, inputs: tuple[Tensor]) -> Tensor:
    (images,) = inputs
    # a copy, since images of one channel count as being in either layout and `contiguous` would leave them alone
    return torch.empty_like(images, memory_format=torch.channels_last).copy_(images) if images.ndim == 4 else images


def trainable_parameters(model: Hybrid) -> dict[str, nn.Parameter]:
    """The parameters that the optimizer changes, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


class BatchCounts:
    """BatchNorm's counts of batches, written when they are read: as many forward passes as there were micro-batches."""

    def __init__(self, model: Hybrid) -> None:
        self._model, self._unwritten = model, 0

    def add(self) -> None:
        """Count a micro-batch."""
        self._unwritten += 1

    def write(self) -> None:
        """Bring the model's counters up to date."""
        count_batches(self._model, self._unwritten)
        self._unwritten = 0


def optimizer_state_keys(optimizer_state: dict[str, Tensor]) -> list[str]:
    """The keys of an optimizer's state: `exp_avg` and `exp_avg_sq` of Adam, for example."""
    return sorted({name.split("/")[0] for name in optimizer_state if "/" in name})


def resume_schedule(schedule: LRScheduler, groups: Iterable[dict[str, Any]], values: dict[str, Any]) -> None:
    """Load a schedule's state, and set the optimizer's learning rate to the schedule's last one."""
    schedule.load_state_dict(values)
    for group, lr in zip(groups, schedule.get_last_lr(), strict=True):
        group["lr"] = lr


def schedule_state(schedule: LRScheduler) -> dict[str, Any]:
    """A schedule's state, its JSON values."""
    plain = int | float | str | list | bool | None
    return {name: value for name, value in schedule.state_dict().items() if isinstance(value, plain)}
