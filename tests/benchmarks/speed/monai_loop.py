"""A loop as MONAI's tutorials have it: cached dictionaries, random transforms, a DataLoader, DiceCELoss, DiceMetric.

The same network, batches, optimizer and schedule as the naive loop's; augmentation of the same kind and size by MONAI's
own transforms. As in the tutorials, batches are made by other processes on a GPU, and the weights alone are saved. On
the CPU batches are made in the loop's own process, since others would take the cores that train.
"""

from math import radians
from pathlib import Path
from typing import Any

import torch
from monai.data import CacheDataset, DataLoader, decollate_batch
from monai.losses import DiceCELoss
from monai.metrics import DiceMetric
from monai.transforms import (
    AsDiscrete,
    Compose,
    EnsureTyped,
    RandAffined,
    RandFlipd,
    RandScaleIntensityd,
    RandShiftIntensityd,
)

from llm4seg.config import Config
from llm4seg.config.schema import Augment
from llm4seg.data.prepared import Prepared
from llm4seg.data.split import read_split
from tests.benchmarks.speed.loops import Timed
from tests.benchmarks.speed.naive import plain_model, plain_optimizer

KEYS, WORKERS = ("image", "label"), 4


class Monai:
    def __init__(self, config: Config, folder: Path, device: torch.device) -> None:
        self._device, self._file = device, folder.with_suffix(".pth")
        data, split = Prepared(config.paths.prepared), read_split(config.paths.split)
        self._model = plain_model(config, data).to(device)
        self._optimizer, self._schedule = plain_optimizer(self._model, config, len(split.train))
        # the Dice of the batch at once, as this project's loss
        self._loss = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
        self._metric = DiceMetric(include_background=False, reduction="mean")
        classes = len(data.classes) + 1
        self._predicted = AsDiscrete(argmax=True, to_onehot=classes)
        self._truth = AsDiscrete(to_onehot=classes)
        augmented = transforms(config.training.augment, data.size)
        self._train = self._loader(cached(data, split.train, augmented), config, shuffle=True)
        self._val = self._loader(cached(data, split.val, []), config, shuffle=False)

    def _loader(self, dataset: CacheDataset, config: Config, shuffle: bool) -> DataLoader:
        cuda = self._device.type == "cuda"
        workers: dict[str, Any] = {"num_workers": WORKERS, "persistent_workers": True} if cuda else {}
        size = config.training.batch_size
        return DataLoader(dataset, batch_size=size, shuffle=shuffle, pin_memory=cuda, **workers)

    def epoch(self, number: int, timed: Timed) -> None:
        with timed("train"):
            self._train_epoch()
        with timed("validate"), torch.no_grad():
            self._validate()
        with timed("checkpoint"):
            torch.save(self._model.state_dict(), self._file)

    def _train_epoch(self) -> float:
        self._model.train()
        total = 0.0
        for batch in self._train:
            images, labels = batch["image"].to(self._device), batch["label"].to(self._device)
            self._optimizer.zero_grad()
            loss = self._loss(self._model(images), labels)
            loss.backward()
            self._optimizer.step()
            self._schedule.step()
            total += loss.item()
        return total

    def _validate(self) -> float:
        self._model.eval()
        for batch in self._val:
            images, labels = batch["image"].to(self._device), batch["label"].to(self._device)
            predicted = [self._predicted(one) for one in decollate_batch(self._model(images))]
            self._metric(y_pred=predicted, y=[self._truth(one) for one in decollate_batch(labels)])
        dice = float(self._metric.aggregate().item())
        self._metric.reset()
        return dice


def cached(data: Prepared, cases: tuple[str, ...], random: list[Any]) -> CacheDataset:
    """The cases in memory, channels first, with random transforms."""
    grids = [data.resampled(case) for case in cases]
    items = [{"image": image.numpy(), "label": labels.numpy()[None]} for image, labels in grids]
    return CacheDataset(items, Compose([EnsureTyped(keys=KEYS), *random]), progress=False)


def transforms(section: Augment, size: tuple[int, ...]) -> list[Any]:
    """MONAI's transforms nearest to the default's augmentation."""
    flips = [RandFlipd(keys=KEYS, prob=0.5, spatial_axis=axis) for axis in section.flip]
    rotations = 1 if len(size) == 2 else 3
    affine = RandAffined(
        keys=KEYS,
        prob=1.0,
        rotate_range=[radians(section.rotate)] * rotations,
        scale_range=[section.scale] * len(size),
        translate_range=[section.shift * side for side in size],
        mode=("bilinear", "nearest"),
        padding_mode=("border", "zeros"),
    )
    gain = RandScaleIntensityd(keys="image", factors=section.intensity, prob=1.0)
    return [*flips, affine, gain, RandShiftIntensityd(keys="image", offsets=section.intensity, prob=1.0)]
