"""`fit`: the whole training of one model, the same on one worker or many, in this process or on a cluster."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save
from torch import Tensor

from llm4seg.config import Config
from llm4seg.data.augment import augment
from llm4seg.data.batches import epoch_order, load_batch, my_share, steps_per_epoch
from llm4seg.data.prepared import Prepared
from llm4seg.data.split import Split, read_split
from llm4seg.engines import Engine, build_engine
from llm4seg.llm.store import LayerStore
from llm4seg.losses import build_loss, labels_from_logits, out_channels
from llm4seg.metrics import class_counts, dice_from_counts
from llm4seg.models import Hybrid, build_model
from llm4seg.run import Row, Run
from llm4seg.trained import WEIGHTS


@dataclass
class Progress:
    """How far a run is: what a resumed one goes on from, beside the engine's own state."""

    history: list[Row] = field(default_factory=list)
    best: float = -1.0
    weights: dict[str, Tensor] = field(default_factory=dict)  # of the epoch that counts

    def record(self, row: Row, engine: Engine, select: str) -> None:
        """Note an epoch, and keep its weights if they are the ones to leave behind."""
        self.history.append(row)
        if select == "last" or row["val_dice"] > self.best or not self.weights:
            self.best = row["val_dice"]
            self.weights = engine.weights()

    def save(self, folder: Path, engine: Engine) -> None:
        """Write a checkpoint: the engine's state with the history, and the weights to leave behind apart."""
        engine.save(folder, {"history": self.history, "best": self.best})
        if dist.get_rank() == 0:
            (folder / WEIGHTS).write_bytes(save(self.weights))  # save_file would raise no OSError on a full disk

    @classmethod
    def load(cls, folder: Path, engine: Engine) -> "Progress":
        state = engine.load(folder)
        return cls(state["history"], state["best"], load_file(folder / WEIGHTS))


def assemble(config: Config, data: Prepared) -> Hybrid:
    """The untrained model of a config for a dataset; its initial weights follow from `training.seed`."""
    torch.manual_seed(config.training.seed)
    store = None if config.model.bottleneck == "identity" else LayerStore(config.paths.llm_used)
    return build_model(
        config.model,
        store,
        spatial_dims=data.spatial_dims,
        in_channels=data.channels,
        out_channels=out_channels(config.training.loss, len(data.classes)),
        seed=config.training.seed,
        size=data.size,
    )


def fit(config: Config, run: Run) -> list[Row]:
    """Train, validate and checkpoint every epoch; go on from a checkpoint if the run has one.

    Returns a row an epoch: epoch, train_loss, val_loss, val_dice (mean over classes, 0 to 1), lr. The last checkpoint
    that `run` was given holds the weights to leave behind as `weights.safetensors`.
    """
    data, split = Prepared(config.paths.prepared), read_split(config.paths.split)
    steps = steps_per_epoch(len(split.train), config.training.batch_size)
    engine = build_engine(assemble(config, data), config, steps * config.training.epochs, run)
    with run.saved() as folder:
        progress = Progress.load(folder, engine) if folder else Progress()
    for epoch in range(len(progress.history), config.training.epochs):
        loss = train_epoch(engine, data, split, config, run, epoch)
        row = {"epoch": epoch + 1, "train_loss": loss, **validate(engine, data, split, config, run), "lr": engine.lr}
        progress.record(row, engine, config.training.select)
        run.report(row, lambda folder: progress.save(folder, engine))
    return progress.history


def train_epoch(engine: Engine, data: Prepared, split: Split, config: Config, run: Run, epoch: int) -> float:
    """One pass over the training part; returns the mean loss over all workers."""
    section, compute_loss = config.training, build_loss(config.training.loss)
    order = epoch_order(len(split.train), section.batch_size, section.seed, epoch)
    total = torch.zeros((), device=run.device)
    engine.train(True)
    for batch in order:
        for samples in my_share(batch, run.rank, run.world_size, config.engine.accumulation).tolist():
            images, labels = load_batch(data, [split.train[sample] for sample in samples], run.device)
            images, labels = augment(images, labels, samples, section.augment, section.seed, epoch)
            loss = compute_loss(engine(images), labels)
            engine.backward(loss)
            engine.step()
            total += loss.detach()
    dist.all_reduce(total)
    return float(total) / (len(order) * config.engine.accumulation * run.world_size)


@torch.no_grad()
def validate(engine: Engine, data: Prepared, split: Split, config: Config, run: Run) -> dict[str, float]:
    """Loss and Dice on the validation part. Workers add counts, so the result does not depend on how many they are."""
    compute_loss, classes = build_loss(config.training.loss), len(data.classes)
    # tp, fp, fn a class; then the summed loss and the number of cases
    counts = torch.zeros(classes, 3, dtype=torch.int64, device=run.device)
    sums = torch.zeros(2, dtype=torch.float64, device=run.device)
    engine.train(False)
    share = config.training.batch_size // run.world_size
    for start in range(0, len(split.val), share * run.world_size):
        chunk = split.val[start : start + share * run.world_size][run.rank :: run.world_size]
        # every worker makes as many forward passes as the others, since ZeRO 3 gathers weights in each
        images, labels = load_batch(data, chunk or split.val[:1], run.device)
        logits = engine(images)
        if chunk:
            counts += class_counts(labels_from_logits(logits), labels, classes)
            sums[0] += compute_loss(logits, labels) * len(chunk)
            sums[1] += len(chunk)
    dist.all_reduce(counts)
    dist.all_reduce(sums)
    return {"val_loss": float(sums[0] / sums[1]), "val_dice": float(dice_from_counts(counts).nanmean())}
