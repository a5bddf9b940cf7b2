"""The optimizer's state as DeepSpeed keeps it, whole and back: each ZeRO stage shares it out over workers in its way.

ZeRO 1 and 2 lay parameters end to end and give each worker a stretch; ZeRO 3 gives each worker a piece of every
parameter; stage 0 shares nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

State = Mapping[nn.Parameter, Mapping[str, Tensor]]  # the slots of each parameter, whole


def slots_of(optimizer: Any) -> list[str]:
    """The names of the optimizer's slots, the same on every worker; none before its first step."""
    inner = getattr(optimizer, "optimizer", optimizer)
    return sorted({slot for state in inner.state.values() for slot, value in state.items() if value.ndim})


def gathered(optimizer: Any, parameters: Sequence[nn.Parameter], slot: str) -> list[Tensor]:
    """A slot of each parameter, whole; every worker must ask for it."""
    if _is_plain(optimizer):
        return [optimizer.state[parameter][slot] for parameter in parameters]
    if _is_stage_3(optimizer):
        from deepspeed.utils import safe_get_full_optimizer_state

        return [safe_get_full_optimizer_state(parameter, slot) for parameter in parameters]
    return _gathered_stage_1_and_2(parameters, slot)


def scatter(optimizer: Any, state: State, step: Tensor) -> None:
    """Give a fresh optimizer each worker's share of a whole state."""
    if _is_plain(optimizer):
        for parameter, slots in state.items():
            optimizer.state[parameter] = {"step": step.clone(), **_copies(slots, parameter.device)}
    elif _is_stage_3(optimizer):
        _scatter_stage_3(optimizer, state, step)
    else:
        _scatter_stage_1_and_2(optimizer, state, step)


def _is_plain(optimizer: Any) -> bool:
    return isinstance(optimizer, torch.optim.Optimizer)


def _is_stage_3(optimizer: Any) -> bool:
    return hasattr(optimizer, "fp32_partitioned_groups_flat")


def _copies(slots: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {slot: value.to(device, copy=True) for slot, value in slots.items()}


def _empty(flat: Tensor, state: State, step: Tensor) -> dict[str, Tensor]:
    """Slots of zeros for a flat piece of parameters: what pads the last piece stays zero."""
    names = next(iter(state.values())).keys()
    return {"step": step.clone(), **{slot: torch.zeros_like(flat) for slot in names}}


def _gathered_stage_1_and_2(parameters: Sequence[Any], slot: str) -> list[Tensor]:
    """In one exchange: DeepSpeed's own way takes one for each parameter, and a checkpoint hundreds."""
    sizes = [parameter.numel() for parameter in parameters]
    whole = torch.zeros(sum(sizes), device=parameters[0].device)
    pieces = whole.split(sizes)
    for parameter, piece in zip(parameters, pieces, strict=True):
        if parameter._hp_mapping is not None:  # part of it lies in this worker's stretch
            mine = parameter._hp_mapping.get_optim_state_fragment(slot).flatten()
            piece.narrow(0, parameter._hp_mapping.lp_fragment_address.start, mine.numel()).copy_(mine)
    dist.all_reduce(whole)
    return [piece.view_as(parameter) for parameter, piece in zip(parameters, pieces, strict=True)]


def _scatter_stage_1_and_2(optimizer: Any, state: State, step: Tensor) -> None:
    for flat, parameters in zip(optimizer.single_partition_of_fp32_groups, optimizer.bit16_groups, strict=True):
        mine = optimizer.optimizer.state[flat] = _empty(flat, state, step)
        for parameter in parameters:
            if parameter._hp_mapping is not None:  # part of it lies in this worker's stretch
                of_flat, of_parameter = (
                    parameter._hp_mapping.hp_fragment_address,
                    parameter._hp_mapping.lp_fragment_address,
                )
                for slot, whole in state[parameter].items():
                    piece = whole.flatten().narrow(0, of_parameter.start, of_parameter.numel)
                    mine[slot].narrow(0, of_flat.start, of_flat.numel).copy_(piece)
    optimizer._lazy_init_hp_params_optimizer_state()


def _scatter_stage_3(optimizer: Any, state: State, step: Tensor) -> None:
    from deepspeed.utils import safe_set_local_optimizer_state

    for flat in optimizer.fp32_partitioned_groups_flat:
        optimizer.optimizer.state[flat] = _empty(flat, state, step)
    parameter: Any  # DeepSpeed hangs its own things on parameters
    for parameter, slots in state.items():
        size = parameter.ds_tensor.numel()
        for slot, whole in slots.items():
            padded = torch.zeros(size * dist.get_world_size())
            padded[: whole.numel()] = whole.flatten()
            safe_set_local_optimizer_state(parameter, padded.narrow(0, size * dist.get_rank(), size), slot)
