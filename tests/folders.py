"""A user's own folder of small pictures, each of gray values of its own, and what is read of it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llm4seg.datasets.cases import Dataset, RawCase
from llm4seg.datasets.folder import folder
from llm4seg.utils.errors import InputError
from tests.tiny import data_section


def write(root: Path, *names: str, value: int = 0) -> None:
    """Pictures by their paths, each in gray values of its own; masks, by their `value`, are a square of 255."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask_of(value) if value else image_of(name)).save(path)


def image_of(name: str) -> np.ndarray:
    return np.random.default_rng([*name.encode()]).integers(1, 255, (8, 10), dtype=np.uint8)


def mask_of(size: int) -> np.ndarray:
    mask = np.zeros((8, 10), dtype=np.uint8)
    mask[:size, :size] = 255
    return mask


def opened(root: Path, **options: str) -> Dataset:
    return folder(data_section(root, **{f"folder.{name}": value for name, value in options.items()}))


def read(root: Path, **options: str) -> dict[str, RawCase]:
    return {case.id: case for case in opened(root, **options).cases}


def refusal(root: Path, **options: str) -> str:
    with pytest.raises(InputError) as raised:
        read(root, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value).replace(str(root), "ROOT")


def check(case: RawCase, images: list[str], size: int) -> None:
    """The case has these images as channels, and the mask of this size."""
    assert np.array_equal(case.image, np.stack([image_of(name) for name in images]))
    assert np.array_equal(case.labels, mask_of(size) // 255)
