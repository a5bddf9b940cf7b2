"""What the ways train on: made-up images of one size, and a random LLM layer in the shape of the default's."""

import io
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm4seg.config import Config
from llm4seg.data.prepared import Prepared
from llm4seg.data.split import Split, write_split
from tests.benchmarks.default import PARAMS

CLASSES, EPOCHS = 4, 1000  # of the default dataset; more epochs than are trained, for the schedule
NAMED = {2: {"small": "4x128", "large": "32x256"}, 3: {"small": "2x32", "large": "2x96"}}
# SmolLM2-135M's
LLM = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 1,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "rope_theta": 100_000.0,
    "rms_norm_eps": 1e-5,
    "vocab_size": 64,
}


@dataclass(frozen=True)
class Workload:
    """Batches of `batch` images with sides of `side`; an epoch trains on `steps` of them."""

    batch: int
    side: int
    dims: int
    steps: int

    @classmethod
    def parse(cls, size: str, dims: int, steps: int) -> "Workload":
        """Of small, large, or BATCHxSIDE as in 4x128. Raises ValueError."""
        batch, side = map(int, NAMED[dims].get(size, size).split("x"))
        if min(batch, side, steps) < 1:
            raise ValueError(size)
        return cls(batch, side, dims, steps)

    @property
    def images(self) -> int:
        """The training images of an epoch."""
        return self.batch * self.steps

    def __str__(self) -> str:
        return f"batches of {self.batch} images of {' x '.join([str(self.side)] * self.dims)}"

    def changes(self, folder: Path) -> dict[str, Any]:
        """What differs from params.yaml, its paths under `folder`."""
        project = PARAMS.absolute().parent
        paths = {f"paths.{name}": str(folder / path.relative_to(project)) for name, path in Config.load(PARAMS).paths}
        sides = [self.side] * self.dims
        return paths | {
            "llm.source": str(folder / "llama"),
            "llm.sha256": None,
            "model.llm.layer": 0,
            "data.dataset": "phantom",
            "data.spatial_dims": self.dims,
            "data.size": sides,
            "data.phantom.size": sides,
            "data.phantom.classes": CLASSES,
            "data.phantom.cases": self.images + self.validated + 1,
            "data.phantom.patients": 4,
            "training.batch_size": self.batch,
            "training.epochs": EPOCHS,
        }

    @property
    def validated(self) -> int:
        """The validation images of an epoch, about as many for each training image as by default."""
        return max(1, self.images // 3)

    def prepare(self, config: Config) -> None:
        """Make the images, the split and, unless the CNN is alone, the LLM layer."""
        from pipelines.prepare import prepare

        with redirect_stdout(io.StringIO()):
            prepare(config)
        ids = tuple(Prepared(config.paths.prepared).cases)
        end = self.images + self.validated
        write_split(
            config.paths.split,
            Split("by number", 0, ids[: self.images], ids[self.images : end], ids[end:], (), ()),
        )
        if config.model.bottleneck == "llm":
            write_llm(config)


def write_llm(config: Config) -> None:
    """A random LLM at `llm.source`, and its layer in the layer store."""
    import torch
    from transformers import LlamaConfig, LlamaModel, logging

    from llm4seg.llm_sources.build_store import fill_store

    logging.disable_progress_bar()
    torch.manual_seed(0)
    LlamaModel(LlamaConfig(**LLM)).save_pretrained(config.llm.source)
    fill_store(config.paths.llm_used, config.llm, [0], config.paths.cache)
