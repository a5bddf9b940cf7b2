"""A checkpoint file of the released code: read without running code in it, written atomically."""

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llm4seg.utils.errors import InputError
from llm4seg.utils.files import replacing

WRAPPERS = ("state_dict", "model_state_dict", "model", "net")  # under which training loops keep a network's state


def read_official(path: Path) -> dict[str, Tensor]:
    """The weights in a checkpoint, by released name; out of a wrapper, and without DataParallel's `module.`.

    Raises InputError when the file is no checkpoint, or holds anything but tensors and plain values.
    """
    state = _loaded(path)
    for key in WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not state:
        raise InputError(f"{path}: found {_kind(state)}, allowed: a network's weights by name")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor) or value.layout != torch.strided:
            raise InputError(f"{path}: {name!r}: found {_kind(value)}, allowed: a tensor")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def write_official(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write a checkpoint as the released code does: the weights by name."""
    content = io.BytesIO()  # written to a file, torch would hide that the disk is full
    torch.save(dict(state), content)
    with replacing(path) as partial:
        partial.write_bytes(content.getbuffer())


def _loaded(path: Path) -> Any:
    with path.open("rb") as file:
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # on a file that is no checkpoint, torch's reader fails in a dozen ways
            raise InputError(f"{path}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """Why torch cannot read a file, in one line."""
    if forbidden := re.search(r"GLOBAL (\w[\w.]*)", str(error)):
        return f"holds {forbidden[1]}, which is no tensor, and was not opened; allowed: a network's weights alone"
    return f"cannot be read as a checkpoint of torch ({type(error).__name__})"


def _kind(value: Any) -> str:
    return "nothing" if isinstance(value, Mapping) and not value else type(value).__name__
