"""Checks that every dataset must pass before training; each failure is one InputError."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from llm4seg.datasets.cases import RawCase
from llm4seg.utils.errors import InputError


class Audit:
    """Checks of a dataset: `case` for each case, then `end` for all of them together."""

    def __init__(self, dataset: str, classes: Sequence[str], spatial_dims: int) -> None:
        self.pixels: Counter[str] = Counter()
        self._dataset, self._classes, self._spatial_dims = dataset, classes, spatial_dims
        self._source_of: dict[str, str] = {}
        self._first: RawCase | None = None

    @property
    def channels(self) -> int:
        """Channels of every image; known once a case was checked."""
        assert self._first is not None
        return len(self._first.image)

    def case(self, case: RawCase) -> dict[str, int]:
        """Check one case; returns its number of pixels of each class."""
        self._check_id(case)
        self._check_arrays(case)
        self._first = self._first or case
        if len(case.image) != len(self._first.image):
            raise InputError(
                f"{case.source}: found {len(case.image)} channels, but {self._first.source} has "
                f"{len(self._first.image)}; all images must have equally many"
            )
        counts = np.bincount(case.labels.ravel(), minlength=len(self._classes) + 1)
        pixels = {name: int(count) for name, count in zip(self._classes, counts[1:], strict=True)}
        self.pixels.update(pixels)
        return pixels

    def _check_id(self, case: RawCase) -> None:
        if case.id in self._source_of:
            raise InputError(f"{case.source}: duplicate case id {case.id!r}, also {self._source_of[case.id]}")
        self._source_of[case.id] = case.source

    def _check_arrays(self, case: RawCase) -> None:
        if case.image.shape[1:] != case.labels.shape:
            sizes = f"image size {case.image.shape[1:]} differs from mask size {case.labels.shape}"
            raise InputError(f"{case.source}: {sizes}")
        assert case.labels.ndim == len(case.spacing) == self._spatial_dims
        if not np.isfinite(case.image).all():
            raise InputError(f"{case.source}: the image of case {case.id!r} has NaN or infinite values")

    def end(self) -> None:
        """Check all cases together: there is one at least, and every class occurs."""
        if not self._source_of:
            raise InputError(f"{self._dataset}: no images found")
        absent = [name for name in self._classes if not self.pixels[name]]
        if len(absent) == len(self._classes):
            raise InputError(f"{self._dataset}: nothing but background in the masks of {len(self._source_of)} cases")
        if absent:
            raise InputError(f"{self._dataset}: class {absent[0]!r} occurs in none of the {len(self._source_of)} cases")
