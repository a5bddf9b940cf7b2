"""A folder in which the command that converts released checkpoints is run, and states for it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from llm4seg.llm.store import LayerStore
from llm4seg.models import Hybrid
from llm4seg.models.saved import load_trained
from llm4seg.released.convert import main
from tests.import_graph import ROOT
from tests.official import official_state

PARAMS = ROOT / "params.yaml"


LLM = "llm4seg.llm."


class Workplace:
    """A folder with a checkpoint, in which the command is run."""

    def __init__(self, root: Path, store: LayerStore) -> None:
        self.root, self.store = root, store
        self.checkpoint, self.model, self.again = root / "official.pth", root / "model", root / "again.pth"

    def run(self, *words: str | Path) -> None:
        main([*map(str, words), "--store", str(self.store.folder), "--params", str(PARAMS)])

    def convert(self, state: Any, *words: str) -> Hybrid:
        """Save a checkpoint, convert it, and load what came of it."""
        torch.save(state, self.checkpoint)
        self.run(self.checkpoint, "--out", self.model, *words)
        return load_trained(self.model, self.store.folder)

    def back(self, *words: str) -> dict[str, Tensor]:
        """Convert the model back, and read the checkpoint that came of it."""
        self.run(self.model, "--back", "--out", self.again, *words)
        state: dict[str, Tensor] = torch.load(self.again, weights_only=True)
        return state

    def refusal(self, source: Path, *words: str) -> str:
        """The one line that the command ends with; it leaves nothing."""
        before = {path.name for path in self.root.iterdir()}
        with pytest.raises(SystemExit) as stopped:
            self.run(source, "--out", self.root / "out", *words)
        line = str(stopped.value.code)
        assert line.startswith("convert: ")
        assert "\n" not in line
        assert {path.name for path in self.root.iterdir()} == before
        return line

    def refused(self, state: Any, *words: str) -> str:
        """The one line that the command ends with for a checkpoint; it names it."""
        torch.save(state, self.checkpoint)
        line = self.refusal(self.checkpoint, *words)
        assert str(self.checkpoint) in line
        return line


def same(some: dict[str, Tensor], others: dict[str, Tensor]) -> bool:
    return some.keys() == others.keys() and all(torch.equal(some[name], others[name]) for name in some)


def cnn_alone() -> dict[str, Tensor]:
    return {name: tensor for name, tensor in official_state().items() if not name.startswith("llm4seg.")}


def with_other_llm() -> dict[str, Tensor]:
    """As the released "random" control: the norms are the layer's, the matrices are not."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(tensor.shape, generator=generator) if LLM in name and tensor.ndim == 2 else tensor
        for name, tensor in official_state().items()
    }
