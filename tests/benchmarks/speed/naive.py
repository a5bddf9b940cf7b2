"""A loop written the naive way on the same model and data.

Torch alone with its defaults, eager, contiguous, float32. Batches are read when they are wanted, by the functions of
this project, with its augmentation and order of samples; loss, optimizer and schedule are torch's own. Metrics of every
step are computed in NumPy, unless they are left out; a checkpoint, with the LLM layer inside, is written by torch.save.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR

from llm4seg.config import Config
from llm4seg.data.augment import augment
from llm4seg.data.batches import epoch_order, load_batch, steps_per_epoch
from llm4seg.data.prepared import Prepared
from llm4seg.data.split import read_split
from llm4seg.training.trainer import assemble
from tests.benchmarks.speed.loops import Timed


class Naive:
    def __init__(self, config: Config, folder: Path, device: torch.device, metrics: bool) -> None:
        self._section, self._device, self._metrics = config.training, device, metrics
        self._file = folder.with_suffix(".pth")
        self._data, self._split = Prepared(config.paths.prepared), read_split(config.paths.split)
        self._model = plain_model(config, self._data).to(device)
        self._optimizer, self._schedule = plain_optimizer(self._model, config, len(self._split.train))

    def epoch(self, number: int, timed: Timed) -> None:
        section, train = self._section, self._split.train
        with timed("train"):
            self._model.train()
            for samples in epoch_order(len(train), section.batch_size, section.seed, number):
                self._step(samples.tolist(), number)
        with timed("validate"), torch.no_grad():
            self._model.eval()
            for start in range(0, len(self._split.val), section.batch_size):
                cases = self._split.val[start : start + section.batch_size]
                images, labels = load_batch(self._data, cases, self._device)
                logits = self._model(images)
                self._look(logits, labels, dice_ce(logits, labels))
        with timed("checkpoint"):
            torch.save({"model": self._model.state_dict(), "optimizer": self._optimizer.state_dict()}, self._file)

    def _step(self, samples: list[int], epoch: int) -> None:
        images, labels = load_batch(self._data, [self._split.train[sample] for sample in samples], self._device)
        images, labels = augment(images, labels, samples, self._section.augment, self._section.seed, epoch)
        logits = self._model(images)
        loss = dice_ce(logits, labels)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self._schedule.step()
        if self._metrics:
            self._look(logits, labels, loss)
        else:
            loss.item()  # as for a progress bar

    def _look(self, logits_NKS: Tensor, labels_NS: Tensor, loss: Tensor) -> tuple[float, dict[str, np.ndarray]]:
        predicted, labels = logits_NKS.detach().softmax(1).cpu().numpy().argmax(1), labels_NS.cpu().numpy()
        return loss.item(), numpy_metrics(predicted, labels, len(self._data.classes))


def plain_model(config: Config, data: Prepared) -> nn.Module:
    """The network of the config, with the LLM layer as transformers loads it."""
    model: Any = assemble(config, data)
    if config.model.bottleneck == "llm":
        from transformers import LlamaModel, logging

        logging.disable_progress_bar()
        llm = LlamaModel.from_pretrained(config.llm.source, dtype=torch.float32)
        model.bottleneck.core.layers[0] = llm.layers[0].requires_grad_(False)
    network: nn.Module = model
    return network


def plain_optimizer(model: nn.Module, config: Config, images: int) -> tuple[AdamW, OneCycleLR]:
    """The default's optimizer and schedule, as torch makes them."""
    section = config.optimizer
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = AdamW(trained, lr=section.lr, weight_decay=section.weight_decay)
    steps = steps_per_epoch(images, config.training.batch_size) * config.training.epochs
    return optimizer, OneCycleLR(optimizer, max_lr=section.lr, total_steps=steps, cycle_momentum=False)


def dice_ce(logits_NKS: Tensor, labels_NS: Tensor) -> Tensor:
    """Cross-entropy plus 1 - the mean Dice over the batch of the foreground classes."""
    axes = (0, *range(2, logits_NKS.ndim))
    probability = logits_NKS.softmax(1)
    truth = functional.one_hot(labels_NS, logits_NKS.shape[1]).movedim(-1, 1).to(probability.dtype)
    shared, both = (probability * truth).sum(axes), probability.sum(axes) + truth.sum(axes)
    dice_K = (2 * shared + 1e-5) / (both + 1e-5)
    return functional.cross_entropy(logits_NKS, labels_NS) + 1 - dice_K[1:].mean()


def numpy_metrics(predicted: np.ndarray, labels: np.ndarray, classes: int) -> dict[str, np.ndarray]:
    """IoU, Dice, precision, recall and accuracy of each class."""
    found = []
    for label in range(1, classes + 1):
        mine, theirs = predicted == label, labels == label
        tp, fp, fn = (mine & theirs).sum(), (mine & ~theirs).sum(), (~mine & theirs).sum()
        accuracy = (mine == theirs).mean()
        ratios = [tp / (tp + fp + fn + 1e-5), 2 * tp / (2 * tp + fp + fn + 1e-5), tp / (tp + fp + 1e-5)]
        found.append([*ratios, tp / (tp + fn + 1e-5), accuracy])
    return dict(zip(("iou", "dice", "precision", "recall", "accuracy"), np.transpose(found), strict=True))
