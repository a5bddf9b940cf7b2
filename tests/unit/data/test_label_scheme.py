"""What labels mean: regions that overlap, their order, ignored pixels."""

import itertools

import numpy as np
import pytest
import torch

from llm4seg.data.label_scheme import IGNORE, LabelScheme
from llm4seg.objectives.losses import labels_from_logits

TUMOR = LabelScheme(("whole", "core", "enhancing"), ((1, 2, 3), (2, 3), (3,)), (1, 2, 3))


def test_a_perfect_prediction_of_regions_becomes_its_labels() -> None:
    labels = torch.tensor([[0, 1, 2, 3, 3, 0]])
    logits = torch.stack([torch.where(mask, 5.0, -5.0) for mask in TUMOR.masks(labels)], dim=1)
    assert torch.equal(labels_from_logits(logits, TUMOR), labels.to(torch.uint8))


def test_later_regions_overwrite_earlier_ones() -> None:
    """The core alone, without the whole around it, is a pixel of the core's label."""
    logits = torch.tensor([[[-1.0, 1.0, 1.0], [2.0, -1.0, 1.0], [-1.0, -1.0, 3.0]]])
    assert labels_from_logits(logits, TUMOR).tolist() == [[2, 1, 3]]


@pytest.mark.parametrize("order", list(itertools.permutations((0, 1, 2))))
def test_only_an_order_that_keeps_each_pixels_regions_is_allowed(order: tuple[int, ...]) -> None:
    """Of nested regions the outermost must come first; any other order loses those within."""
    classes, regions, labels = (tuple(field[k] for k in order) for field in (TUMOR.classes, TUMOR.regions, (1, 2, 3)))
    if order == (0, 1, 2):
        assert LabelScheme(classes, regions, labels).labels == 3
    else:
        with pytest.raises(ValueError, match=r"a pixel of .* would become one of whole.*, as later regions overwrite"):
            LabelScheme(classes, regions, labels)


def test_a_label_may_become_another_of_the_same_regions() -> None:
    """Without a region of its own, label 3 cannot be told from 2, and both are the core."""
    scheme = LabelScheme(("whole", "core"), ((1, 2, 3), (2, 3)), (1, 2))
    labels = torch.tensor([[0, 1, 2, 3]])
    predicted = labels_from_logits(torch.stack([mask * 2.0 - 1 for mask in scheme.masks(labels)], dim=1), scheme)
    assert all(map(torch.equal, scheme.masks(predicted), scheme.masks(labels)))


def test_counts_and_pictures() -> None:
    labels = np.array([[0, 1, 2], [3, 3, IGNORE]], dtype=np.uint8)
    assert TUMOR.counts(labels) == {"whole": 4, "core": 3, "enhancing": 2}
    assert TUMOR.drawn(labels).tolist() == [[0, 1, 2], [3, 3, 0]]
    plain = LabelScheme(("a", "b", "c"))
    assert plain.counts(labels) == {"a": 1, "b": 1, "c": 2}
    assert plain.drawn(labels).tolist() == [[0, 1, 2], [3, 3, 0]]


def test_a_file_and_back() -> None:
    ignoring = LabelScheme(("lesion",), ignore=True)
    for scheme in (TUMOR, ignoring, LabelScheme(("a", "b"))):
        assert LabelScheme.parse(scheme.plain()) == scheme
    assert LabelScheme(("a", "b")).plain() == {"classes": ["a", "b"]}  # as of earlier versions


def test_what_is_ignored_is_background_in_both() -> None:
    predicted, labels = torch.tensor([1, 1, 0, 2]), torch.tensor([1, IGNORE, IGNORE, 2])
    kept = LabelScheme(("a", "b"), ignore=True).without_ignored(predicted, labels)
    assert [one.tolist() for one in kept] == [[1, 0, 0, 2], [1, 0, 0, 2]]
