"""What a step is fed: batches as computed sample by sample, on any number of workers and from either source."""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from llm4seg.config import Config
from llm4seg.data.batches import epoch_order
from llm4seg.data.label_noise import corrupt_labels
from llm4seg.data.prepared import Prepared
from llm4seg.data.resident import resident, stacked
from llm4seg.data.split import read_split
from llm4seg.training.feed import Feed
from llm4seg.training.run import LocalRun

CPU = torch.device("cpu")
GEOMETRY = {"flip": [0, 1], "quarter_turns": True, "rotate": 25, "scale": 0.2, "shift": 0.1, "intensity": 0.2}
AUGMENTED: dict[str, dict[str, Any]] = {
    "default": {},
    "everything static": {**GEOMETRY, "color": 0.3, "elastic": 4.0},
    "values by chance": {**GEOMETRY, "elastic": 4.0, "noise": 0.3, "contrast": 0.3, "gamma": 0.5},
}
PAIRS = ((1, 2),)


class Member(LocalRun):
    """One worker of several, which meets no other."""

    def __init__(self, rank: int, world_size: int) -> None:
        super().__init__(Path("none"))
        self.rank, self.world_size = rank, world_size


def augmented(name: str) -> dict[str, Any]:
    noise = {"training.label_noise.flip": 0.1, "training.label_noise.boundary": 1}
    return noise | {f"training.augment.{key}": value for key, value in AUGMENTED[name].items()}


def feed_of(config: Config, run: LocalRun | None = None, fixed: bool = False) -> tuple[Feed, Prepared, tuple[str, ...]]:
    data, samples, section = Prepared(config.paths.prepared), read_split(config.paths.split).train, config.training
    data.paired = PAIRS

    def labels(labels_S: Tensor, case: str) -> Tensor:
        return corrupt_labels(labels_S, case, data.scheme, section.label_noise, section.seed)

    return Feed(config, data, samples, labels, run or LocalRun(Path("none")), fixed), data, samples


def fed(feed: Feed, config: Config, epoch: int, samples: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """The micro-batches of what is left of an epoch."""
    section = config.training
    order = epoch_order(samples, section.batch_size, section.seed, epoch)[first:]
    with feed.epoch(epoch, order):
        for _ in order:
            for place in range(config.engine.accumulation):
                feed.load(place)
                images, labels = feed.micro_batch(place)
                yield images.clone(), labels.clone()


def by_hand(config: Config, data: Prepared, case: str, sample: int, epoch: int) -> tuple[Tensor, Tensor]:
    """One augmented sample, from its random numbers in the order in which they are drawn; no code is shared."""
    section, size = config.training.augment, data.size
    seed = config.training.seed
    image, labels = data.resampled(case)
    labels = corrupt_labels(labels, case, data.scheme, config.training.label_noise, seed)
    random = np.random.default_rng([seed, epoch, sample])
    linear = np.diag(np.full(len(size), 1 + random.uniform(-section.scale, section.scale)))
    for first, second in combinations(range(len(size)), 2):
        angle = np.deg2rad(random.uniform(-section.rotate, section.rotate))
        turn = np.eye(len(size))
        turn[[first, second], [first, second]] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        linear = linear @ turn
    signs = {axis: int(random.choice([-1, 1])) for axis in section.flip}
    for axis, sign in signs.items():
        linear[:, axis] *= sign
    linear = linear * np.array(size, float)[None, :] / np.array(size, float)[:, None]
    shift = random.uniform(-section.shift, section.shift, len(size)) * 2
    if section.quarter_turns:
        linear = linear @ np.linalg.matrix_power(np.array([[0, -1], [1, 0]]), int(random.integers(4)))
    gain, offset = random.uniform(-section.intensity, section.intensity, 2)
    if signs.get(1) == -1:  # columns are left and right
        swapped = labels.clone()
        swapped[labels == 1], swapped[labels == 2] = 2, 1
        labels = swapped
    matrix = torch.as_tensor(np.concatenate([linear[::-1, ::-1], shift[::-1, None]], axis=1), dtype=torch.float32)
    grid = functional.affine_grid(matrix[None], [1, 1, *size], align_corners=False)
    if section.elastic:
        random = np.random.default_rng([seed, epoch, sample, 1])
        if random.random() < 0.2:
            amplitude = random.uniform(0, section.elastic) * 2 / max(size)
            grid = grid + amplitude * displacement(random, size)
    image = functional.grid_sample(image[None], grid, padding_mode="border", align_corners=False)
    moved = functional.grid_sample(labels[None, None].float(), grid, mode="nearest", align_corners=False)
    gain, offset = torch.tensor([1 + gain, offset], dtype=torch.float32)
    return (image * gain + offset)[0], moved[0, 0].long()


def displacement(random: np.random.Generator, size: tuple[int, ...]) -> Tensor:
    """A smooth field (*size, dims) of the low frequencies of a cosine transform, its largest value 1."""
    field = torch.from_numpy(random.standard_normal((len(size), *[8] * len(size)), dtype=np.float32))
    for side in size:
        k = np.arange(8)[:, None]
        basis = np.cos(np.pi * k * (np.arange(side) + 0.5) / side) * np.where(k > 0, np.sqrt(2), 1)
        basis = basis * np.exp(-((np.pi * k / 8) ** 2) / 2)
        field = torch.tensordot(field, torch.from_numpy(basis.astype(np.float32)), dims=([1], [0]))
    return field.movedim(0, -1) / field.abs().max()


@pytest.mark.parametrize("name", ["default", "everything static"])
def test_batches_are_those_of_each_sample_by_hand(config: Config, name: str) -> None:
    """Bit for bit, in two epochs, with noisy labels and classes of left and right."""
    config = config.override(augmented(name))
    feed, data, samples = feed_of(config)
    displaced = 0
    for epoch in (0, 3):
        order = epoch_order(len(samples), config.training.batch_size, config.training.seed, epoch)
        for row, (images, labels) in zip(order, fed(feed, config, epoch, len(samples)), strict=True):
            displaced += len(feed._moved(slice(0, len(row))) or ())
            for place, sample in enumerate(row.tolist()):
                image, mask = by_hand(config, data, samples[sample], sample, epoch)
                assert torch.equal(images[place], image)
                assert torch.equal(labels[place], mask)
    assert (displaced > 0) == bool(config.training.augment.elastic)


@pytest.mark.parametrize("name", AUGMENTED)
def test_where_images_lie_and_how_steps_are_run_changes_no_batch(config: Config, name: str) -> None:
    """Read from shards, or all on the device; by addresses that stay, with a displacement of each sample, or not."""
    config = config.override(augmented(name) | {"engine.accumulation": 2})
    feed, _, samples = feed_of(config)
    expected = list(fed(feed, config, 1, len(samples)))
    for fixed in (False, True):
        for held in (False, True):
            other, data, _ = feed_of(config, fixed=fixed)
            if held:
                other.resident = stacked(data, samples, CPU, other._labels)
            found = list(fed(other, config, 1, len(samples)))
            assert len(found) == len(expected)
            for (images, labels), (images_too, labels_too) in zip(found, expected, strict=True):
                assert torch.equal(images, images_too)
                assert torch.equal(labels, labels_too)
            assert labels.dtype == torch.int64


def test_an_epoch_gone_on_with_has_the_rest_of_its_batches(config: Config) -> None:
    config = config.override(augmented("everything static"))
    feed, _, samples = feed_of(config)
    whole = list(fed(feed, config, 2, len(samples)))
    for first in (1, 2, 3):  # the last: none is left
        rest = list(fed(feed_of(config)[0], config, 2, len(samples), first))
        assert len(rest) == 3 - first
        assert all(torch.equal(one[0], other[0]) for one, other in zip(rest, whole[first:], strict=True))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(fed(feed, config, 2, len(samples), 1), whole[1:], strict=True))


def test_workers_share_the_batches_of_one(config: Config) -> None:
    """Three of them unequally: of four samples the first has two."""
    config = config.override(augmented("everything static"))
    feed, _, samples = feed_of(config)
    whole = list(fed(feed, config, 0, len(samples)))
    parts = [list(fed(feed_of(config, Member(rank, 3))[0], config, 0, len(samples))) for rank in range(3)]
    assert [len(part[0][0]) for part in parts] == [2, 1, 1]
    for step, (images, labels) in enumerate(whole):
        assert torch.equal(torch.cat([part[step][0] for part in parts]), images)
        assert torch.equal(torch.cat([part[step][1] for part in parts]), labels)


def test_what_a_step_reads_keeps_its_address(config: Config) -> None:
    """Over epochs, and where the first one was left within."""
    config = config.override(augmented("everything static"))
    feed, _, samples = feed_of(config, fixed=True)
    addresses = set()
    for epoch, first in ((0, 1), (1, 0), (2, 0)):
        for _ in fed(feed, config, epoch, len(samples), first):
            assert feed._draws is not None
            tables = [table.data_ptr() for table in feed._draws if table is not None]
            addresses.add((*tables, *(one.data_ptr() for batch in feed._buffers.values() for one in batch)))
    assert len(addresses) == 1


def test_the_cpu_and_volumes_hold_nothing_and_neither_does_a_gpu_without_room(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, cases = Prepared(config.paths.prepared), read_split(config.paths.split).train
    needed = len(cases) * 32 * 32 * 5
    taken: list[str] = []
    monkeypatch.setattr("llm4seg.data.resident.stacked", lambda data, cases, device, transform: taken.extend(cases))
    free = [5 * needed, 5 * needed - 5]
    monkeypatch.setattr("llm4seg.data.resident.free_bytes", lambda device: free.pop(0))
    cuda = torch.device("cuda")
    resident(data, cases, CPU)
    assert not taken
    resident(data, cases, cuda)
    assert tuple(taken) == cases
    resident(data, cases, cuda)
    data.spacing = (1.0, 1.0, 1.0)
    resident(data, cases, cuda)
    assert tuple(taken) == cases
    assert free == []
