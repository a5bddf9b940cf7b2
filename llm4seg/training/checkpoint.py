"""A training checkpoint on disk, from which any engine on any number of workers resumes.

`state.safetensors` holds the current weights and the optimizer's state, `weights.safetensors` the selected weights, and
`checkpoint.json`, written last, the run's progress and the sha256 of all: no pickle, no LLM layer.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from llm4seg.models.saved import WEIGHTS
from llm4seg.training.run import Row
from llm4seg.utils.errors import UserError
from llm4seg.utils.files import read_json, sha256_file, write_json

STATE, DESCRIPTION = "state.safetensors", "checkpoint.json"
MODEL, OPTIMIZER = "model/", "optimizer/"


class DamagedCheckpoint(UserError):
    """A checkpoint that is incomplete or not what was written; the one before it may be intact."""


@dataclass
class Progress:
    """The progress of a run; `step` and `loss`: optimizer steps of the current epoch, and the sum of their losses."""

    history: list[Row] = field(default_factory=list)
    best: float = -1.0
    step: int = 0
    loss: float = 0.0
    schedule: dict[str, Any] = field(default_factory=dict)


@dataclass
class Checkpoint:
    """The state from which a run resumes as if it had never stopped."""

    progress: Progress
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    weights: dict[str, Tensor]  # the selected ones; empty before the first epoch has ended

    def write(self, folder: Path) -> None:
        """Write the checkpoint's files into an existing folder. Raises OSError when the disk is full."""
        state = {MODEL + name: tensor for name, tensor in self.model.items()}
        state |= {OPTIMIZER + name: tensor for name, tensor in self.optimizer.items()}
        # save_file would raise no OSError on a full disk
        (folder / STATE).write_bytes(save(state))
        (folder / WEIGHTS).write_bytes(save(self.weights))
        progress = asdict(self.progress)
        sums = {name: sha256_file(folder / name) for name in (STATE, WEIGHTS)} | {DESCRIPTION: _sha256(progress)}
        write_json(folder / DESCRIPTION, {"sha256": sums, "progress": progress})

    @classmethod
    def read(cls, folder: Path) -> "Checkpoint":
        """Read a checkpoint. Raises DamagedCheckpoint naming the file that is missing or was changed."""
        if not (folder / DESCRIPTION).is_file():
            raise DamagedCheckpoint(f"{folder}: not a whole checkpoint: {DESCRIPTION} is missing")
        try:
            described = read_json(folder / DESCRIPTION)
            for name in (DESCRIPTION, STATE, WEIGHTS):
                found = _sha256(described["progress"]) if name == DESCRIPTION else sha256_file(folder / name)
                if found != (wanted := described["sha256"][name]):
                    raise DamagedCheckpoint(f"{folder / name}: found sha256 {found:.12}, written was {wanted:.12}")
            state, weights = load_file(folder / STATE), load_file(folder / WEIGHTS)
            progress = Progress(**described["progress"])
        except DamagedCheckpoint:
            raise
        except (UserError, OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise DamagedCheckpoint(f"{folder}: not a whole checkpoint: {error}") from None
        return cls(progress, _under(MODEL, state), _under(OPTIMIZER, state), weights)


def _sha256(progress: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(progress, sort_keys=True).encode()).hexdigest()


def _under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names have a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
