"""What both engines do alike."""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from llm4seg.models import Hybrid
from llm4seg.sections import Engine


def lay_out(model: Hybrid, section: Engine) -> None:
    """Let 2-D features run through the network channels last, the layout that convolutions are fastest on.

    The images bring it along, until an instance norm takes it away. The weights keep their own layout, since DeepSpeed
    wants them contiguous.
    """
    if section.channels_last:
        model.encoder.register_forward_pre_hook(_channels_last)


def _channels_last(module: nn.Module, inputs: tuple[Tensor]) -> Tensor:
    (images,) = inputs
    # a copy, since images of one channel count as being in either layout and `contiguous` would leave them alone
    return torch.empty_like(images, memory_format=torch.channels_last).copy_(images) if images.ndim == 4 else images


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
