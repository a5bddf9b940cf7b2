"""The made-up images: reproducible case by case, alike within a patient, in 2-D and 3-D."""

from typing import Any

import numpy as np
import pytest

from llm4seg.config.schema import PhantomData
from llm4seg.datasets.cases import RawCase
from llm4seg.datasets.phantom import phantom
from llm4seg.utils.errors import InputError


def make(spatial_dims: int = 2, **changes: Any) -> list[RawCase]:
    values = {"cases": 12, "patients": 4, "classes": 2, "size": (48, 40), "seed": 0} | changes
    return list(phantom(PhantomData(**values), spatial_dims).cases)


def same(one: RawCase, other: RawCase) -> bool:
    return np.array_equal(one.image, other.image) and np.array_equal(one.labels, other.labels)


def test_a_case_depends_on_nothing_but_seed_and_number() -> None:
    few, many = make(cases=5), make(cases=12)
    assert all(same(one, other) for one, other in zip(few, many[:5], strict=True))
    assert [case.group for case in few] == ["patient-000", "patient-001", "patient-002", "patient-003", "patient-000"]
    assert not any(same(one, other) for one, other in zip(make(seed=1), many, strict=True))
    assert len({case.image.tobytes() for case in many}) == 12


@pytest.mark.parametrize(("size", "dims"), [((48, 40), 2), ((24, 20, 16), 3)])
def test_shape_and_classes(size: tuple[int, ...], dims: int) -> None:
    cases = make(dims, size=size, classes=3)
    for number, case in enumerate(cases):
        assert case.image.shape == (1, *size)
        assert case.image.dtype == case.labels.dtype == np.uint8
        assert case.labels.shape == size
        assert number % 3 + 1 in case.labels  # so every class occurs once there are as many cases as classes
        assert case.labels.max() <= 3
        assert 0.003 < (case.labels > 0).mean() < 0.5


def test_lesions_differ_from_tissue_but_no_threshold_finds_them() -> None:
    cases = make(cases=40, patients=20, classes=1)
    darker = [case.image[0][case.labels == 0].mean() - case.image[0][case.labels > 0].mean() for case in cases]
    assert min(darker) > 5
    best = max(np.mean([dice(case.image[0] < level, case.labels > 0) for case in cases]) for level in range(0, 255, 5))
    assert 0.2 < best < 0.7


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def test_a_patients_images_are_alike() -> None:
    """Mean and grain of the tissue vary less within a patient than between patients."""
    cases = make(cases=24, patients=6, size=(64, 64))
    for feature in (tissue_brightness, tissue_grain):
        values = np.array([feature(case) for case in cases]).reshape(4, 6)  # (case of the patient, patient)
        assert values.std(axis=0).mean() < 0.6 * values.mean(axis=0).std()


def tissue_brightness(case: RawCase) -> float:
    return float(case.image[0][case.labels == 0].mean())


def tissue_grain(case: RawCase) -> float:
    differences = np.abs(np.diff(case.image[0].astype(float), axis=0))
    return float(differences[case.labels[1:] == 0].mean())


def test_size_and_dimensions_must_agree() -> None:
    with pytest.raises(InputError, match=r"data\.phantom\.size: found \[48, 40\], allowed: 3 numbers"):
        make(3)
