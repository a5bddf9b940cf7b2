"""DeepSpeed's private names: the optimizer's flat tensors, and its table of compiled ops.

ZeRO 1 and 2 partition one flat tensor of all parameters over the workers; ZeRO 3 partitions every parameter; stage 0
partitions nothing.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

State = Mapping[
    nn.Parameter, Mapping[str, Tensor]
]  # the optimizer's state of each parameter by torch's keys, unpartitioned


def disable_shared_memory_op() -> None:
    """Keep DeepSpeed from compiling the op that only `inference_all_reduce` uses, on the CPU."""
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def restore_linear() -> None:
    """Undo what ZeRO 3 does to a process for good: its own `torch.nn.functional.linear`, which rounds otherwise."""
    if "deepspeed" in sys.modules:
        from deepspeed.runtime.zero.partition_parameters import InsertPostInitMethodToModuleSubClasses

        original = getattr(InsertPostInitMethodToModuleSubClasses, "linear_bk", None)
        if original is not None:
            torch.nn.functional.linear = original


def state_keys(optimizer: Any) -> list[str]:
    """The keys of the optimizer's state, the same on every worker; none before its first step."""
    inner = getattr(optimizer, "optimizer", optimizer)
    return sorted({key for state in inner.state.values() for key, value in state.items() if value.ndim})


def gather(optimizer: Any, parameters: Sequence[nn.Parameter], key: str) -> list[Tensor]:
    """One key of each parameter's state, unpartitioned; a collective call."""
    if _is_plain(optimizer):
        return [optimizer.state[parameter][key] for parameter in parameters]
    if _is_stage_3(optimizer):
        from deepspeed.utils import safe_get_full_optimizer_state

        return [safe_get_full_optimizer_state(parameter, key) for parameter in parameters]
    return _gather_stage_1_and_2(parameters, key)


def scatter(optimizer: Any, state: State, step: Tensor) -> None:
    """Load this worker's partition of an unpartitioned state into a fresh optimizer."""
    if _is_plain(optimizer):
        for parameter, values in state.items():
            copies = {key: value.to(parameter.device, copy=True) for key, value in values.items()}
            optimizer.state[parameter] = {"step": step.to(parameter.device, copy=True), **copies}
    elif _is_stage_3(optimizer):
        _scatter_stage_3(optimizer, state, step)
    else:
        _scatter_stage_1_and_2(optimizer, state, step)


def _is_plain(optimizer: Any) -> bool:
    return isinstance(optimizer, torch.optim.Optimizer)


def _is_stage_3(optimizer: Any) -> bool:
    return hasattr(optimizer, "fp32_partitioned_groups_flat")


def _zeros(flat: Tensor, state: State, step: Tensor) -> dict[str, Tensor]:
    """A state of zeros for a flat partition: the padding of the last partition stays zero."""
    keys = next(iter(state.values())).keys()
    return {"step": step.to(flat.device, copy=True), **{key: torch.zeros_like(flat) for key in keys}}


def _gather_stage_1_and_2(parameters: Sequence[Any], key: str) -> list[Tensor]:
    """In one exchange. `safe_get_full_optimizer_state` takes one for each parameter: of the default model's 174 on two
    workers, 111 ms instead of 5, more than all the rest of a checkpoint.
    """
    sizes = [parameter.numel() for parameter in parameters]
    flat = torch.zeros(sum(sizes), device=parameters[0].device)
    pieces = flat.split(sizes)
    for parameter, piece in zip(parameters, pieces, strict=True):
        if parameter._hp_mapping is not None:  # part of it is in this worker's partition
            fragment = parameter._hp_mapping.get_optim_state_fragment(key).flatten()
            piece.narrow(0, parameter._hp_mapping.lp_fragment_address.start, fragment.numel()).copy_(fragment)
    dist.all_reduce(flat)
    return [piece.view_as(parameter) for parameter, piece in zip(parameters, pieces, strict=True)]


def _scatter_stage_1_and_2(optimizer: Any, state: State, step: Tensor) -> None:
    from deepspeed.utils import lazy_init_hp_params_optimizer_state, safe_set_full_optimizer_state

    for flat, parameters in zip(optimizer.single_partition_of_fp32_groups, optimizer.bit16_groups, strict=True):
        optimizer.optimizer.state[flat] = _zeros(flat, state, step)
        lazy_init_hp_params_optimizer_state(parameters, flat, optimizer.optimizer.state)
    for parameter, values in state.items():
        for key, value in values.items():
            safe_set_full_optimizer_state(parameter, value, key)


def _scatter_stage_3(optimizer: Any, state: State, step: Tensor) -> None:
    from deepspeed.utils import safe_set_local_optimizer_state

    for flat in optimizer.fp32_partitioned_groups_flat:
        optimizer.optimizer.state[flat] = _zeros(flat, state, step)
    parameter: Any  # DeepSpeed adds attributes to parameters
    for parameter, values in state.items():
        # safe_set_full_optimizer_state refuses a tensor whose last partition is shorter than the others
        size = parameter.ds_tensor.numel()
        for key, value in values.items():
            padded = torch.zeros(size * dist.get_world_size())
            padded[: value.numel()] = value.flatten()
            safe_set_local_optimizer_state(parameter, padded.narrow(0, size * dist.get_rank(), size), key)
