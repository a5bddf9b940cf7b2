"""The confusion of classes, against counts of pairs of pixels."""

from collections import Counter

import numpy as np
import pytest
import torch

from llm4seg.data.label_scheme import IGNORE, LabelScheme
from llm4seg.evaluation.confusion import Confusion, hundredths


@pytest.mark.parametrize("shape", [(7, 5), (6, 5, 4)])
@pytest.mark.parametrize("ignore", [False, True])
def test_pixels_by_pairs_and_their_shares(shape: tuple[int, ...], ignore: bool) -> None:
    random = np.random.default_rng(0)
    scheme = LabelScheme(("cyst", "solid tumor", "never"), ignore=ignore)
    confusion, pairs = Confusion(scheme), Counter[tuple[int, int]]()
    for _ in range(3):
        labels, predicted = random.integers(0, 3, shape, np.uint8), random.integers(0, 4, shape, np.uint8)
        if ignore:
            labels[0] = IGNORE
        confusion.add(torch.from_numpy(predicted), torch.from_numpy(labels))
        both = zip(labels.ravel().tolist(), predicted.ravel().tolist(), strict=True)
        pairs.update((a, b) for a, b in both if a != IGNORE)
    assert confusion.pixels.tolist() == [[pairs[a, b] for b in range(4)] for a in range(4)]
    counts = Counter(confusion.table().itertuples(index=False, name=None))
    for a, name in enumerate(confusion.names):
        total = sum(pairs[a, b] for b in range(4))
        of_class = [counts[name, other] for other in confusion.names]
        assert sum(of_class) == (100 if total else 0)
        assert all(abs(share - 100 * pairs[a, b] / max(total, 1)) < 1 for b, share in enumerate(of_class))


def test_of_regions_a_pixel_counts_as_the_last_one() -> None:
    scheme = LabelScheme(("whole", "core"), ((1, 2), (2,)), (1, 2))
    confusion = Confusion(scheme)
    confusion.add(torch.tensor([[0, 1, 2, 2]], dtype=torch.uint8), torch.tensor([[0, 1, 1, 2]], dtype=torch.uint8))
    assert confusion.pixels.tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 1]]


def test_hundredths_by_largest_remainders() -> None:
    assert hundredths([1, 1, 1]) == [34, 33, 33]
    assert hundredths([0, 0]) == [0, 0]
    assert hundredths([999, 1]) == [100, 0]
    assert hundredths([2, 5]) == [29, 71]
