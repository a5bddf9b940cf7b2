"""Volumes that processes of `prepare` make up on their own, without importing torch."""

import numpy as np

from llm4seg.datasets.cases import RawCase, SeparateCases
from llm4seg.utils.errors import InputError

DAMAGED = 7


def read_volume(number: int) -> list[RawCase]:
    """A volume of about 0.1 MB; number DAMAGED cannot be read."""
    if number == DAMAGED:
        raise InputError(f"a{number}.nii: cannot be read as an image: damaged")
    image = np.random.default_rng(number).integers(0, 255, (1, 60 + number, 60, 30), dtype=np.uint8)
    name, spacing = f"a{number}", (1.0, 0.5 + number, 2.0)
    return [RawCase(name, name, f"{name}.nii", image, labels=image[0] // 86, spacing=spacing)]


def separate_volumes(numbers: range, size: int) -> SeparateCases:
    """`size`: the bytes of each, which decide between threads and processes."""
    return SeparateCases(read_volume, numbers, str, lambda number: size)
