"""`Feed`: the micro-batches of a training, augmented on the device, with nothing for the host to do in a step."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from llm4seg.config import Config
from llm4seg.data.augment import transform
from llm4seg.data.augment_draws import Draws, Sides, draw, thin_axis
from llm4seg.data.batches import load_batch, steps_per_epoch, worker_share
from llm4seg.data.intensity_augment import augment_intensities
from llm4seg.data.loader import prefetch, read_on_demand, to_device
from llm4seg.data.patches import load_patches
from llm4seg.data.prepared import Prepared
from llm4seg.data.resident import Resident, resident
from llm4seg.training.run import Run

Batch = tuple[Tensor, Tensor]  # images (N, C, *size) float32, labels (N, *size) int64


class Feed:
    """This worker's share of each step of an epoch.

    The host calls `epoch`, and `load` before each micro-batch; `micro_batch` is work of the device alone: it reads
    tensors whose addresses stay, at the place of the step under way, so that a CUDA graph may record it. That holds
    unless images' values are changed by chance (`augment_intensities`).
    """

    def __init__(
        self,
        config: Config,
        data: Prepared,
        samples: Sequence[str],
        labels: Callable[[Tensor, str], Tensor],
        run: Run,
        fixed: bool = False,
    ) -> None:
        """`samples`: the case of each sample of an epoch; `labels`: those to train on, of a case's own and its id;
        `fixed`: whether the addresses of loaded images must stay, too.
        """
        self._config, self._data, self._samples, self._labels, self._run = config, data, samples, labels, run
        self._sides = Sides(data.paired, lambda sample: data.left_right_axis(samples[sample]))
        self.resident: Resident | None = resident(data, samples, run.device, labels)
        self._fixed = fixed
        self._draws: Draws | None = None  # of the steps of an epoch: (steps, N, ...)
        self._cases: Tensor | None = None  # of the same: (steps, N)
        self._row = torch.zeros(1, dtype=torch.int64, device=run.device)
        self._buffers: dict[int, Batch] = {}

    @contextmanager
    def epoch(self, epoch: int, order: np.ndarray) -> Iterator[None]:
        """Draw for the global batches (steps, batch_size) that are left of an epoch, and begin to read them."""
        samples = [np.concatenate(self._shares(batch)) for batch in order]
        ends = np.cumsum([0, *map(len, self._shares(np.arange(order.shape[1])))]).tolist()
        self._parts = [slice(first, last) for first, last in pairwise(ends)]
        self._epoch, self._next = epoch, -1
        self._rows = np.array(samples, np.int64).reshape(len(order), ends[-1])
        self._draw()
        if self.resident is not None:
            self._cases = self._into(self._cases, torch.from_numpy(self._rows))
        with closing(self.micro_batches(order, epoch)) as self._loaded:
            yield

    def load(self, place: int) -> None:
        """Have a micro-batch of the step under way ready; the first one begins the next step."""
        if place == 0:
            self._next += 1
            self._row.fill_(self._next)
        if self.resident is not None:
            return
        batch = next(self._loaded)
        count = len(batch[0])
        if self._fixed and count in self._buffers:
            for buffer, tensor in zip(self._buffers[count], batch, strict=True):
                buffer.copy_(tensor)
        else:
            self._buffers[count] = batch

    def micro_batch(self, place: int) -> Batch:
        """The micro-batch at a place of the step under way."""
        part, section = self._parts[place], self._config.training
        draws = self._in_row(place)
        if self.resident is not None:
            assert self._cases is not None
            images, labels = self.resident.take(self._cases.index_select(0, self._row)[0, part])
        else:
            images, labels = self._buffers[part.stop - part.start]
        moved = None if self._fixed else self._moved(part)
        images, labels = transform(images, labels, draws, self._sides, self._data.spacing, moved)
        samples, thin = self._rows[self._next, part].tolist(), thin_axis(self._data.size, self._data.spacing)
        return augment_intensities(images, samples, section.augment, section.seed, self._epoch, thin), labels

    def micro_batches(self, order: np.ndarray, epoch: int) -> Generator[Batch, None, None]:
        """Micro-batches of global batches (steps, batch_size) as they are read; on a GPU the next one is read ahead."""
        read = prefetch if self._run.device.type == "cuda" else read_on_demand
        return read(partial(self.read, epoch), (part.tolist() for batch in order for part in self._shares(batch)))

    def read(self, epoch: int, samples: list[int]) -> Batch:
        """The images and labels of some samples of an epoch, on the device, not yet augmented."""
        cases, section = [self._samples[sample] for sample in samples], self._config.training
        if self._data.spacing is not None:
            return load_patches(self._data, cases, samples, section.patch, section.seed, epoch, self._run.device)
        return load_batch(self._data, cases, self._run.device, self._labels)

    def _shares(self, batch: np.ndarray) -> list[np.ndarray]:
        return worker_share(batch, self._run.rank, self._run.world_size, self._config.engine.accumulation)

    def _draw(self) -> None:
        """Draw for all steps at once, and copy what is drawn to the device at once."""
        section, size = self._config.training, tuple(self._data.size)
        drawn = draw(
            self._rows.ravel().tolist(),
            section.augment,
            size,
            self._data.channels,
            section.seed,
            self._epoch,
            self._sides,
            self._data.spacing,
        ).each(lambda tensor: tensor.view(*self._rows.shape, *tensor.shape[1:]))
        self._amplitude = drawn.amplitude
        if self._draws is None:
            self._draws = drawn.each(partial(self._into, None))
            return
        for table, tensor in zip(self._draws, drawn, strict=True):
            if tensor is not None:
                self._into(table, tensor)

    def _into(self, table: Tensor | None, rows: Tensor) -> Tensor:
        """A table on the device of the steps of an epoch whose address stays, with rows of those that are left."""
        if table is None:
            steps = steps_per_epoch(len(self._samples), self._config.training.batch_size)
            table = rows.new_zeros(steps, *rows.shape[1:], device=self._run.device)
        table[: len(rows)].copy_(to_device(rows, self._run.device))
        return table

    def _in_row(self, place: int) -> Draws:
        """What is drawn for a micro-batch of the step under way."""
        assert self._draws is not None
        return self._draws.each(lambda table: table.index_select(0, self._row)[0, self._parts[place]])

    def _moved(self, part: slice) -> list[int] | None:
        """The places in a micro-batch with an elastic displacement, as the host knows them."""
        if self._amplitude is None:
            return None
        places: list[int] = self._amplitude[self._next, part].nonzero()[:, 0].tolist()
        return places
