"""Runs by name: the name of a run, the folder of its checkpoints, its outcome. Without Ray."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from llm4seg.cluster.storage import RunFolder, retrying
from llm4seg.config import Config
from llm4seg.data.prepared import Prepared
from llm4seg.llm.store import named_store
from llm4seg.models.saved import WEIGHTS, describe_llm, trained_intensity
from llm4seg.training.checkpoint import Checkpoint, DamagedCheckpoint
from llm4seg.training.run import Row
from llm4seg.utils.files import sha256_file
from llm4seg.utils.provenance import TRAINING, code_digest


@dataclass(frozen=True)
class Outcome:
    """The outcome of a finished training.

    `history`: a row per epoch; `seconds`: the time of the training itself; `engine`: the engine's name; `measured`: the
    model's parameters and latency, if requested; `folder`, `checkpoint`: the run's folder, and the name of the last
    checkpoint in it; `timeout`: for how many seconds the storage is retried.
    """

    history: list[Row]
    seconds: float
    engine: str
    measured: Row
    folder: RunFolder
    checkpoint: str
    timeout: float

    @contextmanager
    def weights(self) -> Iterator[Path]:
        """The file with the final weights."""
        with self.folder.open(self.checkpoint, self.timeout) as files:
            yield files / WEIGHTS

    def forget(self) -> None:
        """Delete the run's checkpoints, so that the next training of the same config starts from the beginning."""
        retrying(self.timeout)(self.folder.forget)


def run_name(config: Config) -> str:
    """The name of a run, which only equal computations share: an interrupted run of this name can be resumed.

    Reads and hashes files, so callers compute it once.
    """
    llm = describe_llm(config)
    sources = [
        code_digest(*TRAINING),
        Prepared(config.paths.prepared).sha256,
        config.paths.split.read_text(),
        llm and (llm["layers"], llm["norm_sha256"]),
    ]
    if config.model.bottleneck == "mlp":  # whose width follows from the LLM's
        sources.append(named_store(config.paths.llm_used, config.model.llm.source).config)
    if config.training.init_from is not None:
        sources.append(sha256_file(config.training.init_from / WEIGHTS))
        if (intensity := trained_intensity(config.training.init_from)) is not None:
            sources.append(intensity.plain())  # of volumes, which are normalized as they were there
    return "train-" + config.digest("model", "optimizer", "training", "engine", extra=str(sources))


def storage(config: Config) -> str:
    """The address of the checkpoint storage: a local folder or a bucket."""
    return config.cluster.storage or str(config.paths.runs)


def run_folder(config: Config, name: str) -> RunFolder:
    """The folder of a run's checkpoints."""
    return RunFolder.at(storage(config), name)


def forget_run(config: Config, name: str) -> None:
    """Delete a run's checkpoints, if there are any."""
    retrying(config.cluster.storage_patience)(run_folder(config, name).forget)


def final_weights(config: Config, name: str) -> dict[str, Tensor]:
    """The final weights of a finished run, from its newest checkpoint."""
    folder = run_folder(config, name)
    newest = retrying(config.cluster.storage_patience)(folder.checkpoints)[0]
    with folder.open(newest, config.cluster.storage_patience) as checkpoint:
        return Checkpoint.read(checkpoint).weights


def completed_epochs(config: Config, name: str) -> list[Row]:
    """The rows of the epochs that an interrupted run had completed; empty without a readable checkpoint."""
    folder = run_folder(config, name)
    for checkpoint in retrying(config.cluster.storage_patience)(folder.checkpoints):
        with folder.open(checkpoint, config.cluster.storage_patience) as files:
            try:
                return Checkpoint.read(files).progress.history
            except DamagedCheckpoint:  # as `fit` does: try the checkpoint before
                continue
    return []
