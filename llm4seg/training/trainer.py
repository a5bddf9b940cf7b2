"""`fit`: the whole training of one model, the same on one worker or many, in this process or on a cluster."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple
from weakref import proxy

import torch
from torch import Tensor

from llm4seg.config import Config
from llm4seg.data.augment import check_flips, check_turned_flips, check_turns
from llm4seg.data.batches import epoch_order, steps_per_epoch
from llm4seg.data.label_noise import corrupt_labels
from llm4seg.data.patch_size import resolve_auto
from llm4seg.data.prepared import Prepared
from llm4seg.llm.store import named_store
from llm4seg.models import Hybrid, build_model
from llm4seg.models.init_from import init_from
from llm4seg.objectives.deep_supervision import supervised_loss
from llm4seg.objectives.losses import build_loss, out_channels
from llm4seg.runtime.seeding import seed_step
from llm4seg.training.checkpoint import Checkpoint, Progress
from llm4seg.training.class_weights import class_weights, count_labels, counted_labels
from llm4seg.training.control import Control
from llm4seg.training.engines import Engine, build_engine
from llm4seg.training.feed import Feed
from llm4seg.training.history import epochs_since_best, is_complete, is_validated
from llm4seg.training.inputs import training_inputs
from llm4seg.training.live import Step as Advance
from llm4seg.training.readback import Readback
from llm4seg.training.resume import newest
from llm4seg.training.run import CHECKPOINT, STOP, SYNC, Row, Run
from llm4seg.training.step import Step, recorder_for
from llm4seg.training.validation import Validation, check_validation
from llm4seg.utils.errors import Diverged, StopRequested


class Place(NamedTuple):
    """A step of an epoch, both from 0, and the cases of its global batch."""

    epoch: int
    step: int
    cases: tuple[str, ...]


def assemble(config: Config, data: Prepared, log: Callable[[str], None] | None = None) -> Hybrid:
    """The untrained model of a config for a dataset; its initial weights follow from `training.seed`.

    `data` are as `training_inputs` gives them. With `training.init_from`, a trained model's weights replace them where
    they fit; `log` gets lines on which.
    """
    torch.manual_seed(config.training.seed)
    alone = config.model.bottleneck == "identity"
    store = None if alone else named_store(config.paths.llm_used, config.model.llm.source)
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
    """The state of a training, new or from a checkpoint, and its loop, `train`.

    A step is work of the device alone (`micro_batch`), between which the host seeds, feeds and takes note; its loss is
    read a step late where that saves the host from waiting.
    """

    def __init__(self, config: Config, run: Run, initial: Mapping[str, Tensor] | None = None) -> None:
        self.config, self.run = config, run
        section = config.training
        self.data, self.split = training_inputs(config)
        # the case of each sample of an epoch: of volumes, several patches
        per_case = 1 if self.data.spacing is None else section.patch.per_case
        self.samples = [case for case in self.split.train for _ in range(per_case)]
        noise, seed = section.label_noise, section.seed
        self.training_labels = partial(corrupt_labels, scheme=self.data.scheme, section=noise, seed=seed)
        # augmented patches ignore what lies beyond their border
        ignore = self.data.scheme.ignore or self.data.spacing is not None
        self.loss = build_loss(section.loss, replace(self.data.scheme, ignore=ignore), section, self.class_weights())
        self.steps = steps_per_epoch(len(self.samples), section.batch_size)
        check_flips(self.data, self.split.train, section.augment.flip)
        check_turned_flips(self.data, self.split.train, section.augment)
        check_turns(self.data, section.augment)
        check_validation(config, self.data, self.split.val)
        model, saved = assemble(config, self.data, run.log), newest(run)
        if saved:
            model.load_weights(saved.model)
        elif initial:
            model.load_cnn(initial)
        self.engine: Engine = build_engine(model, config, self.steps * section.epochs, run)
        self.progress = saved.progress if saved else Progress()
        self.weights = saved.weights if saved else {}
        if saved:
            self.engine.resume(saved.optimizer, saved.progress.schedule)
        self._build_step(model)

    def _build_step(self, model: Hybrid) -> None:
        """What a step needs besides the engine, and how it is run: as it is, or recorded and replayed."""
        recorder, run = recorder_for(self.config, self.engine, self.run), self.run
        self.feed = Feed(self.config, self.data, self.samples, self.training_labels, run, recorder is not None)
        self.step_loss = torch.zeros((), dtype=torch.float64, device=run.device)  # the sum over its micro-batches
        # weak: in a cycle of references a training's memory would stay when it is over, as the next one begins
        micro_batch = partial(Trainer.micro_batch, proxy(self))
        bodies = [partial(micro_batch, place) for place in range(self.config.engine.accumulation)]
        self.step = Step(bodies, list(model.parameters()), recorder, run.log)
        self.losses, self.control = Readback[Place](run.device), Control(run)
        self.validation = Validation(self.config, self.data, self.split.val, self.loss, self.engine, run)

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
        with self.feed.epoch(epoch, order[progress.step :]):
            for step in range(progress.step, self.steps):
                self.train_step(epoch, step)
                place = Place(epoch, step, tuple(self.samples[sample] for sample in order[step]))
                self.take_note(self.losses.put(place, self.step_loss))
                self.poll_control()
        self.take_note(self.losses.settle())
        return progress.loss / self.steps

    def train_step(self, epoch: int, step: int) -> None:
        """One optimizer step, begun; `step_loss` is its loss times the number of micro-batches."""
        seed_step(self.config.training.seed, epoch, step)
        for place in range(self.config.engine.accumulation):
            self.feed.load(place)
            self.step(place)
            self.engine.advance()

    def micro_batch(self, place: int) -> None:
        """Forward, loss, backward and, after the last micro-batch, the optimizer's step; all on the device."""
        images, labels = self.feed.micro_batch(place)
        loss = supervised_loss(self.loss, self.engine(images), labels)
        self.engine.backward(loss)
        if self.engine.at_boundary:
            self.engine.update()
        if place == 0:
            self.step_loss.zero_()
        self.step_loss += loss.detach()

    def take_note(self, done: list[tuple[Place, float]]) -> None:
        """Take the losses of steps that are done into the progress. Raises Diverged at one that is not finite."""
        for place, total in done:
            loss, step, progress = total / self.config.engine.accumulation, place.step + 1, self.progress
            where = f"in epoch {place.epoch + 1}, step {step} of {self.steps}, on the cases {', '.join(place.cases)}"
            self.check_finite(loss, "loss", where)
            progress.loss, progress.step = progress.loss + loss, step
            self.run.advance(Advance(place.epoch + 1, step, self.steps, loss, self.config.training.batch_size))

    def class_weights(self) -> Tensor | None:
        """The weights of `training.class_weights` by the labels that are trained on."""
        own = self.split.train[self.run.rank :: self.run.world_size]
        pixels = (self.label_counts(case) for case in own)
        return class_weights(self.config.training, self.data.scheme, pixels, self.run.device)

    def label_counts(self, case: str) -> Tensor:
        if self.data.spacing is not None and not self.data.scheme.ignore:  # without label noise: the config sees to it
            return counted_labels(self.data.cases[case].on_grid)
        return count_labels(self.training_labels(self.data.resampled(case)[1], case))

    def check_finite(self, value: float, what: str, where: str) -> None:
        """Raise Diverged unless a value is finite, before it gets into a checkpoint."""
        if not math.isfinite(value):
            raise Diverged(f"the {what} is {value} {where}")

    def poll_control(self) -> None:
        """Follow the run's control signal between two steps."""
        signal = self.control.poll()
        if signal == SYNC:
            signal = self.run.sync_control()
        if signal in (CHECKPOINT, STOP):
            self.save(None)
        if signal == STOP:
            raise StopRequested

    def validate(self) -> tuple[float, float]:
        """Loss and Dice on the validation part."""
        return self.validation(len(self.progress.history) + 1, self.poll_control)

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
        self.take_note(self.losses.settle())
        optimizer, self.progress.schedule = self.engine.state()
        weights = self.engine.trainable_state_dict()
        # a step may make weights infinite although its loss is finite
        where = f"after {len(self.progress.history)} whole epochs and {self.progress.step} steps"
        total = sum(float(weight.sum(dtype=torch.float64)) for weight in weights.values())
        self.check_finite(total, "sum of all weights", where)
        checkpoint = Checkpoint(self.progress, weights, optimizer, self.weights)
        self.run.report(row, checkpoint.write)
