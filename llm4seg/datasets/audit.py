"""Checks that every dataset must pass before training; each failure is one InputError, each warning one line."""

from collections import Counter

import numpy as np

from llm4seg.config.schema import Data
from llm4seg.data.label_scheme import LabelScheme
from llm4seg.data.prepared import Unit
from llm4seg.datasets.cases import RawCase
from llm4seg.utils.errors import InputError

PLANES = ("sagittal", "coronal", "axial")  # of slices across the axis to the right, the front, the head
MOST_VANISHED = 0.1  # of the cases that have a class; beyond, its absence on the network's grid is worth a warning


class Audit:
    """Checks of a dataset: `case` and `resized` for each case, then `check_cases` and `end` for all of them together.

    `grid` is the network's, in words; with a spacing that is `auto`, known when all cases were seen.
    """

    def __init__(self, dataset: str, scheme: LabelScheme, section: Data) -> None:
        self.pixels: Counter[str] = Counter()
        self._dataset, self._scheme, self._classes = dataset, scheme, scheme.classes
        self.grid = " x ".join(map(str, section.size))
        self._dims, self._remedy = section.spatial_dims, "a larger data.size"
        if section.grid == "spacing":
            self._remedy = "a finer data.spacing"
        self._cases_with: Counter[str] = Counter()
        self._vanished: Counter[str] = Counter()
        self._source_of: dict[str, str] = {}
        self._source_in: dict[Unit, str] = {}  # the first case of each unit
        self._source_across: dict[str, str] = {}  # the first case of each plane that slices lie in
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
        self._source_in.setdefault(case.unit, case.source)
        if case.volume is not None and case.geometry is not None:
            self._source_across.setdefault(PLANES[case.geometry.across], case.source)
        pixels = self._scheme.counts(case.labels)
        self.pixels.update(pixels)
        return pixels

    def resized(self, pixels: dict[str, int], labels_S: np.ndarray) -> dict[str, int]:
        """Count the pixels of each class on the network's grid, of a case with these original `pixels`."""
        on_grid = self._scheme.counts(labels_S)
        self._cases_with.update(name for name in self._classes if pixels[name])
        self._vanished.update(name for name in self._classes if pixels[name] and not on_grid[name])
        return on_grid

    def _check_id(self, case: RawCase) -> None:
        if case.id in self._source_of:
            raise InputError(f"{case.source}: duplicate case id {case.id!r}, also {self._source_of[case.id]}")
        self._source_of[case.id] = case.source

    def _check_arrays(self, case: RawCase) -> None:
        if case.image.shape[1:] != case.labels.shape:
            sizes = f"image size {case.image.shape[1:]} differs from mask size {case.labels.shape}"
            raise InputError(f"{case.source}: {sizes}")
        assert case.labels.ndim == len(case.spacing) == self._dims
        if case.image.dtype.kind == "f" and (bad := int((~np.isfinite(case.image)).sum())):
            raise InputError(f"{case.source}: the image of case {case.id!r} has {bad} NaN or infinite values")

    def check_cases(self) -> None:
        """Check all cases together: there is one at least, and every class occurs."""
        if not self._source_of:
            raise InputError(f"{self._dataset}: no images found")
        absent = [name for name in self._classes if not self.pixels[name]]
        if len(absent) == len(self._classes):
            raise InputError(f"{self._dataset}: nothing but background in the masks of {len(self._source_of)} cases")
        if absent:
            raise InputError(f"{self._dataset}: class {absent[0]!r} occurs in none of the {len(self._source_of)} cases")

    def end(self) -> list[str]:
        """Check that every class occurs on the network's grid, too; returns warnings."""
        return [*self._check_grid(), *self._check_units(), *self._check_planes()]

    def _check_grid(self) -> list[str]:
        warnings = []
        for name in self._classes:
            gone, cases = self._vanished[name], self._cases_with[name]
            where = f"class {name!r} has no pixel on the network's grid of {self.grid}"
            if gone == cases:
                raise InputError(
                    f"{self._dataset}: {where} in any of the {cases} cases with it; allowed: {self._remedy}"
                )
            if gone > MOST_VANISHED * cases:
                warnings.append(f"{where} in {gone} of the {cases} cases with it: {self._remedy} keeps it")
        return warnings

    def _check_planes(self) -> list[str]:
        if len(self._source_across) < 2:
            return []
        planes = " and ".join(f"{plane} for some volumes ({source})" for plane, source in self._source_across.items())
        return [f"slices are {planes}: each volume's largest spacing decides, see data/raw/README.md"]

    def _check_units(self) -> list[str]:
        if len(self._source_in) < 2:
            return []
        return [
            f"distances are in mm for some cases ({self._source_in['mm']}) and in px, without a pixel size, for others "
            f"({self._source_in['px']}): their means over cases say nothing, and left is not known in the latter"
        ]
