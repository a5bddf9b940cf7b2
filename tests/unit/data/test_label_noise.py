"""Errors in training masks and fractions of the training part: the right ones, and the same ones every time."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from llm4seg.config import Config
from llm4seg.config.schema import LabelNoise
from llm4seg.data.label_noise import corrupt_labels, subsample
from llm4seg.data.label_scheme import LabelScheme
from llm4seg.data.prepared import Prepared
from llm4seg.data.split import read_split
from llm4seg.training.run import LocalRun
from llm4seg.training.trainer import Trainer

TWO = LabelScheme(("one", "two"))
NONE = {"boundary": 0, "drop": 0.0, "flip": 0.0}


def noise(**changes: float) -> LabelNoise:
    return LabelNoise.model_validate(NONE | changes)


@pytest.fixture
def discs() -> Tensor:
    """Two separate discs of class 1 and one of class 2."""
    rows, columns = np.ogrid[:64, :64]
    labels = np.zeros((64, 64), np.uint8)
    for row, column, label in ((16, 16, 1), (48, 16, 1), (32, 46, 2)):
        labels[(rows - row) ** 2 + (columns - column) ** 2 < 100] = label
    return torch.from_numpy(labels)


def test_no_noise_changes_nothing(discs: Tensor) -> None:
    assert torch.equal(corrupt_labels(discs, "a", TWO, noise(), 0), discs)


@pytest.mark.parametrize("changes", [{"boundary": 3}, {"drop": 0.5}, {"flip": 0.2}])
def test_is_drawn_by_seed_and_case_and_leaves_the_original_alone(discs: Tensor, changes: dict[str, float]) -> None:
    before, section = discs.clone(), noise(**changes)
    drawn = [corrupt_labels(discs, case, TWO, section, seed) for case in "abcdef" for seed in (0, 1)]
    again = [corrupt_labels(discs, case, TWO, section, seed) for case in "abcdef" for seed in (0, 1)]
    assert all(torch.equal(one, other) for one, other in zip(drawn, again, strict=True))
    assert len({one.numpy().tobytes() for one in drawn}) > 3
    assert torch.equal(discs, before)


def test_boundaries_move_by_so_many_pixels_at_most(discs: Tensor) -> None:
    widths = set()
    for case in map(str, range(30)):
        moved = corrupt_labels(discs, case, TWO, noise(boundary=2), 0)
        widths.add(int((moved[32] == 2).sum()))
        assert torch.all(moved[4:18, 40:52] == 0), "far from any class nothing changes"
    assert widths == {19 + 2 * by for by in range(-2, 3)}


def test_whole_pieces_are_dropped_at_the_given_rate(discs: Tensor) -> None:
    pieces = [
        (discs == 2),
        *((discs == 1) & side for side in (torch.arange(64)[:, None] < 32, torch.arange(64)[:, None] >= 32)),
    ]
    gone = []
    for case in map(str, range(300)):
        left = corrupt_labels(discs, case, TWO, noise(drop=0.3), 0)
        shares = [float((left[piece] == 0).float().mean()) for piece in pieces]
        assert set(shares) <= {0.0, 1.0}
        gone += shares
    assert np.mean(gone) == pytest.approx(0.3, abs=0.05)


def test_pixels_are_flipped_at_the_given_rate_to_any_other_label(discs: Tensor) -> None:
    flipped = corrupt_labels(discs, "a", TWO, noise(flip=0.1), 0)
    changed = flipped != discs
    assert float(changed.float().mean()) == pytest.approx(0.1, abs=0.02)
    assert set(flipped[changed].tolist()) == {0, 1, 2}


def test_smaller_fractions_are_nested_and_take_whole_patients(workspace: Config) -> None:
    data, train = Prepared(workspace.paths.prepared), read_split(workspace.paths.split).train
    parts = [subsample(train, data, fraction, 0) for fraction in (0.01, 0.3, 0.5, 1.0)]
    assert [len(part) for part in parts] == [1, 4, 6, 12]
    assert parts[-1] == train
    for small, large in pairwise(parts):
        assert set(small) < set(large)
    groups = [data.cases[case].group for case in parts[1]]
    assert len(set(groups)) == 2
    assert len({subsample(train, data, 0.3, seed) for seed in range(5)}) > 1


def test_only_the_training_part_is_noisy_and_thinned(config: Config, group: None) -> None:
    changes = {"training.label_noise.flip": 0.5, "training.fraction": 0.5, "engine.name": "torch"}
    plain = Trainer(config.override({"engine.name": "torch"}), LocalRun(config.paths.runs))
    trainer = Trainer(config.override(changes), LocalRun(config.paths.runs))
    assert len(trainer.split.train) == 6
    assert (trainer.split.val, trainer.split.test) == (plain.split.val, plain.split.test)
    case = trainer.split.train[0]
    images, labels = trainer.feed.read(0, [0])
    clean_images, clean = plain.validation.load([case])
    assert torch.equal(images, clean_images)
    assert 0.3 < float((labels != clean).float().mean()) < 0.7
    assert torch.equal(
        trainer.validation.load([trainer.split.val[0]])[1], plain.validation.load([plain.split.val[0]])[1]
    )
