"""What both engines do alike."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from llm4seg.models import Hybrid
from llm4seg.sections import Engine


def lay_out(model: Hybrid, section: Engine) -> None:
    """Let 2-D features run through the network channels last, the layout that convolutions are fastest on.

    It is set behind the stem: on images of one channel it would say nothing. The weights keep their own layout, since
    DeepSpeed wants them contiguous.
    """
    if section.channels_last:
        model.get_submodule("encoder.stem").register_forward_hook(_channels_last)


def _channels_last(module: nn.Module, inputs: Any, features: Tensor) -> Tensor:
    return features.contiguous(memory_format=torch.channels_last) if features.ndim == 4 else features


def average_statistics(model: nn.Module) -> None:
    """Give every worker the mean of all workers' BatchNorm statistics: they see different samples."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            for statistic in (module.running_mean, module.running_var):
                assert statistic is not None
                dist.all_reduce(statistic)
                statistic.div_(dist.get_world_size())


def copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, contiguous and no longer shared with the model."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in state.items()}
