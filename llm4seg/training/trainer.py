"""`fit`: the whole training of one model, the same on one worker or many, in this process or on a cluster."""

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import islice

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from llm4seg.config import Config
from llm4seg.data.augment import augment, check_flips, check_turned_flips, check_turns
from llm4seg.data.augment_draws import Sides
from llm4seg.data.batches import epoch_order, load_batch, steps_per_epoch, worker_share
from llm4seg.data.label_noise import corrupt_labels
from llm4seg.data.label_scheme import foreground
from llm4seg.data.loader import prefetch, read_on_demand
from llm4seg.data.patch_size import resolve_auto
from llm4seg.data.patches import load_patches
from llm4seg.data.prepared import Prepared
from llm4seg.llm.store import LayerStore
from llm4seg.models import Hybrid, build_model
from llm4seg.models.init_from import init_from
from llm4seg.objectives.deep_supervision import supervised_loss
from llm4seg.objectives.losses import build_loss, labels_from_logits, out_channels
from llm4seg.objectives.metrics import dice_from_counts, scheme_counts
from llm4seg.runtime.collectives import all_reduce_max
from llm4seg.runtime.seeding import seed_step
from llm4seg.training.checkpoint import Checkpoint, Progress
from llm4seg.training.class_weights import class_weights, count_labels, counted_labels
from llm4seg.training.engines import Engine, build_engine
from llm4seg.training.history import epochs_since_best, is_complete, is_validated
from llm4seg.training.inputs import training_inputs
from llm4seg.training.live import PICTURED, Live, Snapshot, Step, snapshots
from llm4seg.training.resume import newest
from llm4seg.training.run import CHECKPOINT, STOP, SYNC, Row, Run
from llm4seg.training.volumes import predicted_volumes, slabs
from llm4seg.utils.errors import InputError, StopRequested, UserError

MicroBatch = tuple[list[int], Tensor, Tensor]  # sample indices, images, labels


class Diverged(UserError):
    """The training diverged: its loss or weights are not finite."""


def assemble(config: Config, data: Prepared, log: Callable[[str], None] | None = None) -> Hybrid:
    """The untrained model of a config for a dataset; its initial weights follow from `training.seed`.

    `data` are as `training_inputs` gives them. With `training.init_from`, a trained model's weights replace them where
    they fit; `log` gets lines on which.
    """
    torch.manual_seed(config.training.seed)
    store = None if config.model.bottleneck == "identity" else LayerStore(config.paths.llm_used)
    model = build_model(
        resolve_auto(config, data).model,
        store,
        spatial_dims=data.spatial_dims,
        in_channels=data.channels,
        out_channels=out_channels(config.training.loss, data.scheme),
        seed=config.training.seed,
        size=data.size,
        deep_supervision=config.training.deep_supervision,
    )
    if config.training.init_from is not None:
        for line in init_from(model, config, data):
            if log is not None:
                log(line)
    return model


def fit(config: Config, run: Run, initial: Mapping[str, Tensor] | None = None) -> list[Row]:
    """Train, validate and checkpoint every epoch, and when `run` signals it; resume from the run's checkpoint, if any.

    `initial`: weights of a trained CNN to start from, instead of random ones.

    Returns a row per epoch: epoch, train_loss, val_loss, val_dice (mean over classes, 0 to 1), lr, and with
    `training.patience`, which may end it early, epochs_since_best; without a validation (`training.validate_every`)
    epoch, train_loss and lr. The last checkpoint of `run` has the selected weights in `weights.safetensors`.
    Raises StopRequested when the run signals STOP.
    """
    return Trainer(config, run, initial).train()


class Trainer:
    """The state of a training, new or from a checkpoint, and its loop, `train`."""

    def __init__(self, config: Config, run: Run, initial: Mapping[str, Tensor] | None = None) -> None:
        self.config, self.run = config, run
        section = config.training
        self.data, self.split = training_inputs(config)
        # the case of each sample of an epoch: of volumes, several patches
        per_case = 1 if self.data.spacing is None else section.patch.per_case
        self.samples = [case for case in self.split.train for _ in range(per_case)]
        # augmented patches ignore what lies beyond their border
        ignore = self.data.scheme.ignore or self.data.spacing is not None
        self.loss = build_loss(section.loss, replace(self.data.scheme, ignore=ignore), section, self.class_weights())
        self.steps = steps_per_epoch(len(self.samples), config.training.batch_size)
        self.sides = Sides(self.data.paired, lambda sample: self.data.left_right_axis(self.samples[sample]))
        check_flips(self.data, self.split.train, config.training.augment.flip)
        check_turned_flips(self.data, self.split.train, config.training.augment)
        check_turns(self.data, config.training.augment)
        self.check_validation()
        model, saved = assemble(config, self.data, run.log), newest(run)
        if saved:
            model.load_weights(saved.model)
        elif initial:
            model.load_cnn(initial)
        self.engine: Engine = build_engine(model, config, self.steps * config.training.epochs, run)
        self.progress = saved.progress if saved else Progress()
        self.weights = saved.weights if saved else {}
        if saved:
            self.engine.resume(saved.optimizer, saved.progress.schedule)

    def train(self) -> list[Row]:
        history = self.progress.history
        if is_complete(history, self.config.training):
            self.save(None)  # its launcher did not get the last report
        while not is_complete(history, self.config.training):
            epoch = len(history)
            row = {"epoch": epoch + 1, "train_loss": self.train_epoch(epoch)}
            validated = is_validated(epoch + 1, self.config.training)
            if validated:
                row["val_loss"], row["val_dice"] = self.validate()
                self.check_finite(row["val_loss"], "validation loss", f"after epoch {epoch + 1}")
            row["lr"] = self.engine.lr
            if validated and self.config.training.patience is not None:
                row["epochs_since_best"] = epochs_since_best([*history, row])
            self.record(row)
            self.save(row)
        return history

    def train_epoch(self, epoch: int) -> float:
        """The remaining steps of an epoch; returns the mean loss of all its steps."""
        section, progress = self.config.training, self.progress
        order = epoch_order(len(self.samples), section.batch_size, section.seed, epoch)
        self.engine.train(True)
        with closing(self.micro_batches(order[progress.step :], epoch)) as batches:
            for step in range(progress.step, self.steps):
                loss = self.train_step(batches, epoch, step)
                cases = ", ".join(self.samples[sample] for sample in order[step])
                where = f"in epoch {epoch + 1}, step {step + 1} of {self.steps}, on the cases {cases}"
                self.check_finite(loss, "loss", where)
                progress.loss, progress.step = progress.loss + loss, step + 1
                self.run.advance(Step(epoch + 1, step + 1, self.steps, loss, section.batch_size))
                self.poll_control()
        return progress.loss / self.steps

    def micro_batches(self, order: np.ndarray, epoch: int) -> Generator[MicroBatch, None, None]:
        """This worker's share of global batches (steps, batch_size); prefetched on a GPU."""
        accumulation, run = self.config.engine.accumulation, self.run
        shares = (worker_share(batch, run.rank, run.world_size, accumulation) for batch in order)
        read = prefetch if run.device.type == "cuda" else read_on_demand
        return read(partial(self.read, epoch), (samples.tolist() for share in shares for samples in share))

    def read(self, epoch: int, samples: list[int]) -> MicroBatch:
        cases, section = [self.samples[sample] for sample in samples], self.config.training
        if self.data.spacing is not None:
            patches = load_patches(self.data, cases, samples, section.patch, section.seed, epoch, self.run.device)
            return samples, *patches
        return samples, *load_batch(self.data, cases, self.run.device, self.training_labels)

    def training_labels(self, labels_S: Tensor, case: str) -> Tensor:
        """A case's labels with the noise of `training.label_noise`."""
        section = self.config.training
        return corrupt_labels(labels_S, case, self.data.scheme, section.label_noise, section.seed)

    def class_weights(self) -> Tensor | None:
        """The weights of `training.class_weights` by the labels that are trained on."""
        own = self.split.train[self.run.rank :: self.run.world_size]
        pixels = (self.label_counts(case) for case in own)
        return class_weights(self.config.training, self.data.scheme, pixels, self.run.device)

    def label_counts(self, case: str) -> Tensor:
        if self.data.spacing is not None and not self.data.scheme.ignore:  # without label noise: the config sees to it
            return counted_labels(self.data.cases[case].on_grid)
        return count_labels(self.training_labels(self.data.resampled(case)[1], case))

    def train_step(self, batches: Iterator[MicroBatch], epoch: int, step: int) -> float:
        """One optimizer step; returns the loss over the global batch."""
        section, accumulation = self.config.training, self.config.engine.accumulation
        seed_step(section.seed, epoch, step)
        losses = torch.zeros((), dtype=torch.float64, device=self.run.device)
        for samples, images, labels in islice(batches, accumulation):
            images, labels = augment(
                images, labels, samples, section.augment, section.seed, epoch, self.sides, self.data.spacing
            )
            loss = supervised_loss(self.loss, self.engine(images), labels)
            self.engine.backward(loss)
            self.engine.step()
            losses += loss.detach()
        return float(losses) / accumulation

    def load(self, cases: Sequence[str]) -> tuple[Tensor, Tensor]:
        return load_batch(self.data, cases, self.run.device)

    def check_validation(self) -> None:
        """Refuse a validation part in which no class occurs: its Dice would be no number to choose weights by."""
        if self.data.spacing is not None:
            known, remedy = any(self.data.cases[case].on_grid.voxels for case in self.split.val), "split.val"
        else:
            known = any(foreground(self.data.resampled(case)[1]).any() for case in self.split.val)
            remedy = "split.val or data.size"
        if not known:
            grid = self.data.spacing or self.data.size
            raise InputError(
                f"{self.config.paths.split}: found nothing but background in the {len(self.split.val)} cases of the "
                f"validation part on a grid of {[*grid]}; raise {remedy}, or change split.seed"
            )

    def check_finite(self, value: float, what: str, where: str) -> None:
        """Raise Diverged unless a value is finite, before it gets into a checkpoint."""
        if not math.isfinite(value):
            raise Diverged(
                f"the {what} is {value} {where}; the last checkpoint is kept; lower optimizer.lr, or set "
                "optimizer.clip_norm"
            )

    def poll_control(self) -> None:
        """Follow the run's control signal between two steps."""
        signal = all_reduce_max(self.run.control_signal(), self.run.device)
        if signal == SYNC:
            signal = self.run.sync_control()
        if signal in (CHECKPOINT, STOP):
            self.save(None)
        if signal == STOP:
            raise StopRequested

    @torch.no_grad()
    def validate(self) -> tuple[float, float]:
        """Loss and Dice on the validation part, from sums over all workers, so that their number changes nothing."""
        scheme, device = self.data.scheme, self.run.device
        counts = torch.zeros(len(scheme.classes), 3, dtype=torch.int64, device=device)
        sums: Tensor | float = 0.0
        own, shown = iter(self.split.val[self.run.rank :: self.run.world_size]), list[Snapshot]()
        epoch, every = len(self.progress.history) + 1, self.config.tracking.pictures
        self.engine.train(False)
        for weight, logits, labels in self.predictions():
            cases = list(islice(own, len(labels))) if weight else []
            if every and epoch % every == 0 and len(shown) < PICTURED:
                shown += snapshots(self.data, cases, logits, labels)
            whole = self.data.spacing is None or not self.loss.additive
            for part, truth in [(logits, labels)] if whole else slabs(logits, labels):
                counts += weight * scheme_counts(labels_from_logits(part, scheme), truth, scheme).to(device)
                sums = sums + weight * self.loss.sums(part, truth).double().to(device)
            self.poll_control()  # a checkpoint here is of the epoch's last step: a resumed run validates again
        assert isinstance(sums, Tensor)
        dist.all_reduce(counts)
        dist.all_reduce(sums)
        dice_K = dice_from_counts(counts)
        by_class = dict(zip(scheme.classes, dice_K.tolist(), strict=True))
        self.run.show(Live(epoch, by_class, tuple(shown[:PICTURED])))
        return float(self.loss.value(sums)), float(dice_K.nanmean())

    def predictions(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Logits and labels of this worker's share of the validation part, with their weight; 0: they do not count."""
        if self.data.spacing is not None:
            yield from predicted_volumes(self.logits, self.data, self.split.val, self.run)
            return
        for cases in self.chunks(list(self.split.val[self.run.rank :: self.run.world_size])):
            # a worker with no case left passes forward all the same, since ZeRO 3 gathers weights in each pass
            images, labels = self.load(cases or self.split.val[:1])
            yield 1 if cases else 0, self.logits(images), labels

    def logits(self, images_NCS: Tensor) -> Tensor:
        """The logits of the network in evaluation mode, at full resolution alone."""
        logits = self.engine(images_NCS)
        assert isinstance(logits, Tensor)
        return logits

    def chunks(self, cases: list[str]) -> Iterator[list[str]]:
        """This worker's cases in batches: as many batches on every worker, the last ones empty if need be."""
        size = max(1, self.config.training.batch_size // self.run.world_size)
        most = -(-len(self.split.val) // self.run.world_size)
        return (cases[start : start + size] for start in range(0, most, size))

    def record(self, row: Row) -> None:
        """Record an epoch that is over, and keep its weights if `training.select` selects them.

        Those of an epoch without a validation are kept until there is one, as there must be some.
        """
        self.progress.history.append(row)
        self.progress.step, self.progress.loss = 0, 0.0
        dice, best = row.get("val_dice", -1.0), self.progress.best
        if self.config.training.select == "last" or dice > best or not self.weights:
            self.progress.best, self.weights = dice, self.engine.trainable_state_dict()

    def save(self, row: Row | None) -> None:
        """Report a checkpoint of the present state to the run."""
        optimizer, self.progress.schedule = self.engine.state()
        weights = self.engine.trainable_state_dict()
        # a step may make weights infinite although its loss is finite
        where = f"after {len(self.progress.history)} whole epochs and {self.progress.step} steps"
        self.check_finite(
            sum(float(weight.sum(dtype=torch.float64)) for weight in weights.values()), "sum of all weights", where
        )
        checkpoint = Checkpoint(self.progress, weights, optimizer, self.weights)
        self.run.report(row, checkpoint.write)
