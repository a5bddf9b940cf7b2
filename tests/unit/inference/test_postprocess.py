"""Post-processing of masks against SciPy's components and by hand."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from llm4seg.data.label_scheme import LabelScheme
from llm4seg.inference.postprocess import parse_steps, postprocess
from llm4seg.utils.errors import InputError

SCHEME = LabelScheme(("a", "b"))
NESTED = LabelScheme(("whole", "core"), ((1, 2), (2,)), (1, 2))


def after(labels: np.ndarray, *steps: str, scheme: LabelScheme = SCHEME) -> np.ndarray:
    given = torch.from_numpy(labels.astype(np.uint8))
    before = given.clone()
    found = postprocess(given, parse_steps(steps, scheme), scheme)
    assert torch.equal(given, before)
    return found.numpy()


def by_scipy(labels: np.ndarray, value: int, smallest: int | None) -> np.ndarray:
    """Labels without the pieces of a value that are too small, or not the largest."""
    pieces, count = ndimage.label(labels == value, ndimage.generate_binary_structure(labels.ndim, labels.ndim))
    sizes = {number: int((pieces == number).sum()) for number in range(1, count + 1)}
    largest = max(sizes, key=lambda number: sizes[number])
    kept = [n for n, size in sizes.items() if (n == largest if smallest is None else size >= smallest)]
    return np.where((labels == value) & ~np.isin(pieces, kept), 0, labels)


@pytest.mark.parametrize("shape", [(40, 50), (14, 16, 18)])
def test_pieces_are_scipys(shape: tuple[int, ...]) -> None:
    field = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=shape), 1.2)
    labels = np.digitize(field, np.quantile(field, [0.6, 0.85]))
    assert np.array_equal(after(labels, "largest:a"), by_scipy(labels, 1, None))
    assert np.array_equal(after(labels, "min:12:b"), by_scipy(labels, 2, 12))
    both = by_scipy(by_scipy(labels, 1, 12), 2, 12)
    assert np.array_equal(after(labels, "min:12"), both)
    assert 0 < (both > 0).sum() < (labels > 0).sum()
    assert np.array_equal(after(labels, "min:12", "largest:b"), by_scipy(both, 2, None))
    assert np.array_equal(after(labels), labels)


def test_corners_connect_and_of_equal_pieces_the_first_stays() -> None:
    labels = np.array([[1, 0, 0, 0], [0, 1, 0, 2], [0, 0, 0, 2], [1, 1, 0, 0]])
    kept = np.array([[1, 0, 0, 0], [0, 1, 0, 2], [0, 0, 0, 2], [0, 0, 0, 0]])
    assert np.array_equal(after(labels, "largest:a"), kept)
    assert np.array_equal(after(labels, "min:3"), np.zeros_like(labels))
    assert np.array_equal(after(np.zeros((3, 4)), "largest:a", "min:3"), np.zeros((3, 4)))


def test_a_piece_of_a_region_leaves_the_regions_around_it() -> None:
    labels = np.array([[1, 2, 1, 1, 2, 2, 1, 0, 2]])
    cored = np.array([[1, 1, 1, 1, 2, 2, 1, 0, 1]])  # the pieces of core with one pixel are whole's still
    assert np.array_equal(after(labels, "largest:core", scheme=NESTED), cored)
    assert after(labels, "largest:whole", scheme=NESTED).tolist() == [[1, 2, 1, 1, 2, 2, 1, 0, 0]]


@pytest.mark.parametrize("step", ["largest", "largest:", "min:0", "min:x", "min:-3", "most:a", "min:3:"])
def test_what_is_no_step_is_refused(step: str) -> None:
    with pytest.raises(InputError, match=r"evaluation.postprocess: found .*, allowed: largest:CLASS, min:PIXELS"):
        parse_steps([step], SCHEME)


def test_another_class_is_refused() -> None:
    for step in ("largest:c", "min:3:c"):
        with pytest.raises(InputError, match=r"found the class c, allowed: a, b"):
            parse_steps([step], SCHEME)
