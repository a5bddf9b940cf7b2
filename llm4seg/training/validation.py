"""Validation: loss and Dice on the validation part, whole images or volumes, by all workers together."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor

from llm4seg.config import Config
from llm4seg.data.batches import load_batch
from llm4seg.data.label_scheme import foreground
from llm4seg.data.prepared import Prepared
from llm4seg.data.resident import resident
from llm4seg.objectives.losses import Loss, labels_from_logits
from llm4seg.objectives.metrics import dice_from_counts, scheme_counts
from llm4seg.runtime.collectives import all_reduce
from llm4seg.training.engines import Engine
from llm4seg.training.live import PICTURED, Live, Snapshot, snapshots
from llm4seg.training.run import Run
from llm4seg.training.volumes import predicted_volumes, slabs
from llm4seg.utils.errors import InputError

# of a batch on a GPU: so many times the training's, which also keeps what its backward pass needs; and pixels at most
TIMES, PIXELS = 8, 2**21


class Validation:
    """Passes the validation part through the network in evaluation mode."""

    def __init__(
        self, config: Config, data: Prepared, case_ids: Sequence[str], loss: Loss, engine: Engine, run: Run
    ) -> None:
        self._config, self._data, self._case_ids, self._loss = config, data, case_ids, loss
        self._engine, self._run = engine, run
        self._own = list(case_ids[run.rank :: run.world_size])
        self._resident = resident(data, self._own, run.device)
        share = max(1, config.training.batch_size // run.world_size)
        self._batch_size = share if run.device.type == "cpu" else large_batch(share, data.size)

    @torch.no_grad()
    def __call__(self, epoch: int, poll_control: Callable[[], None]) -> tuple[float, float]:
        """Loss and Dice, from sums over all workers, so that their number changes nothing; `epoch` from 1.

        `poll_control` is called after each batch.
        """
        scheme, device = self._data.scheme, self._run.device
        counts = torch.zeros(len(scheme.classes), 3, dtype=torch.int64, device=device)
        sums: Tensor | float = 0.0
        own, shown = iter(self._own), list[Snapshot]()
        every = self._config.tracking.pictures
        self._engine.train(False)
        for weight, logits, labels in self._predictions():
            cases = list(islice(own, len(labels))) if weight else []
            if every and epoch % every == 0 and len(shown) < PICTURED:
                shown += snapshots(self._data, cases, logits, labels)
            whole = self._data.spacing is None or not self._loss.additive
            for part, truth in [(logits, labels)] if whole else slabs(logits, labels):
                counts += weight * scheme_counts(labels_from_logits(part, scheme), truth, scheme).to(device)
                sums = sums + weight * self._loss.sums(part, truth).double().to(device)
            poll_control()  # a checkpoint here is of the epoch's last step: a resumed run validates again
        assert isinstance(sums, Tensor)
        dice_K = dice_from_counts(all_reduce(counts))
        loss = self._loss.value(all_reduce(sums))
        by_class = dict(zip(scheme.classes, dice_K.tolist(), strict=True))
        self._run.show(Live(epoch, by_class, tuple(shown[:PICTURED])))
        return float(loss), float(dice_K.nanmean())

    def load(self, case_ids: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Images and labels of some cases, on the device."""
        return load_batch(self._data, case_ids, self._run.device)

    def logits(self, images_NCS: Tensor) -> Tensor:
        """The logits of the network in evaluation mode, at full resolution alone."""
        logits = self._engine(images_NCS)
        assert isinstance(logits, Tensor)
        return logits

    def _predictions(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Logits and labels of this worker's share of the validation part, with their weight; 0: they do not count."""
        if self._data.spacing is not None:
            yield from predicted_volumes(self.logits, self._data, self._case_ids, self._run)
            return
        most = -(-len(self._case_ids) // self._run.world_size)
        # as many batches on every worker, the last ones empty if need be
        for first in range(0, most, self._batch_size):
            cases = self._own[first : first + self._batch_size]
            # a worker with no case left passes forward all the same, since ZeRO 3 gathers weights in each pass
            if cases and self._resident is not None:
                images, labels = self._resident.slice(first, first + self._batch_size)
            else:
                images, labels = self.load(cases or self._case_ids[:1])
            yield 1 if cases else 0, self.logits(images), labels


def large_batch(share: int, size: Sequence[int]) -> int:
    """The validation's batch on a GPU, of images of a size: larger than a worker's `share` in training.

    It follows from the config alone, not from what memory is free, so that two runs add up in the same order.
    """
    return max(share, min(TIMES * share, PIXELS // math.prod(size)))


def check_validation(config: Config, data: Prepared, case_ids: Sequence[str]) -> None:
    """Refuse a validation part in which no class occurs: its Dice would be no number to choose weights by."""
    if data.spacing is not None:
        known, remedy = any(data.cases[case].on_grid.voxels for case in case_ids), "split.val"
    else:
        known = any(foreground(data.resampled(case)[1]).any() for case in case_ids)
        remedy = "split.val or data.size"
    if not known:
        raise InputError(
            f"{config.paths.split}: found nothing but background in the {len(case_ids)} cases of the validation part "
            f"on a grid of {[*(data.spacing or data.size)]}; raise {remedy}, or change split.seed"
        )
