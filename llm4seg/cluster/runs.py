"""Runs by name: what names one, where its checkpoints are, what it leaves. Without Ray."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from llm4seg.cluster.storage import RunFolder, retrying
from llm4seg.config import Config
from llm4seg.data.prepared import Prepared
from llm4seg.models.saved import WEIGHTS, describe_llm
from llm4seg.training.checkpoint import Checkpoint, DamagedCheckpoint
from llm4seg.training.run import Row
from llm4seg.utils.files import sha256_file
from llm4seg.utils.provenance import TRAINING, code_digest


@dataclass(frozen=True)
class Outcome:
    """What a finished training leaves: a row an epoch, its seconds inside `fit`, what ran it, the last checkpoint.

    `measured`: the model's parameters and latency, where they were asked for.
    """

    history: list[Row]
    seconds: float
    engine: str
    measured: Row
    folder: RunFolder
    checkpoint: str
    patience: float

    @contextmanager
    def weights(self) -> Iterator[Path]:
        """The file of the weights to leave behind."""
        with self.folder.open(self.checkpoint, self.patience) as files:
            yield files / WEIGHTS

    def forget(self) -> None:
        """Delete the run's checkpoints, so that the same config trains anew when asked again."""
        retrying(self.patience)(self.folder.forget)


def run_name(config: Config) -> str:
    """A name that only equal computations share: a run interrupted under it can be gone on with, no other can.

    Reads and hashes files, so a caller computes it once.
    """
    llm = describe_llm(config)
    sources = [
        code_digest(*TRAINING),
        Prepared(config.paths.prepared).sha256,
        config.paths.split.read_text(),
        llm and (llm["layers"], llm["norm_sha256"]),
    ]
    if config.training.init_from is not None:
        sources.append(sha256_file(config.training.init_from / WEIGHTS))
    return "train-" + config.digest("model", "optimizer", "training", "engine", extra=str(sources))


def storage(config: Config) -> str:
    """Where checkpoints go: a local folder or a bucket."""
    return config.cluster.storage or str(config.paths.runs)


def run_folder(config: Config, name: str) -> RunFolder:
    """The folder of a run's checkpoints."""
    return RunFolder.at(storage(config), name)


def forget_run(config: Config, name: str) -> None:
    """Delete a run's checkpoints, if there are any."""
    retrying(config.cluster.storage_patience)(run_folder(config, name).forget)


def final_weights(config: Config, name: str) -> dict[str, Tensor]:
    """The weights that a finished run left behind."""
    folder = run_folder(config, name)
    newest = retrying(config.cluster.storage_patience)(folder.checkpoints)[0]
    with folder.open(newest, config.cluster.storage_patience) as checkpoint:
        return Checkpoint.read(checkpoint).weights


def completed_epochs(config: Config, name: str) -> list[Row]:
    """The epochs that a run had behind it when it was interrupted."""
    folder = run_folder(config, name)
    for checkpoint in retrying(config.cluster.storage_patience)(folder.checkpoints):
        with folder.open(checkpoint, config.cluster.storage_patience) as files:
            try:
                return Checkpoint.read(files).progress.history
            except DamagedCheckpoint:  # as `fit` does: try the one before
                continue
    return []
