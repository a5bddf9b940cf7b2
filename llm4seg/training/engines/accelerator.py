"""DeepSpeed, imported for one kind of device."""

import os
import re
import warnings
from typing import Any

import torch

from llm4seg.training.engines.deepspeed_internals import disable_shared_memory_op


def import_for(device: torch.device) -> Any:
    """DeepSpeed without its shared-memory op, which would cost a C++ compiler."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")  # its calls, not ours
    os.environ["DS_ACCELERATOR"] = device.type  # by default it takes a GPU wherever there is one
    if wanted := os.environ.get("TORCH_CUDA_ARCH_LIST"):  # as images of NVIDIA set it, to 9.0a; its builder needs 9.0
        os.environ["TORCH_CUDA_ARCH_LIST"] = re.sub(r"(\d)[a-z]", r"\1", wanted)
    import deepspeed
    from deepspeed.accelerator import get_accelerator, set_accelerator

    if get_accelerator().device_name() != device.type:  # something else imported it before, beside a GPU
        set_accelerator(_accelerator(device))
    disable_shared_memory_op()
    deepspeed.utils.logger.setLevel("ERROR")  # it warns about every optimizer but its own
    return deepspeed


def _accelerator(device: torch.device) -> Any:
    """DeepSpeed's own description of a device."""
    if device.type == "cuda":
        from deepspeed.accelerator.cuda_accelerator import CUDA_Accelerator

        return CUDA_Accelerator()
    from deepspeed.accelerator.cpu_accelerator import CPU_Accelerator

    return CPU_Accelerator()
