"""Checks that every dataset must pass before training; each failure is one InputError, each warning one line."""

from collections import Counter

from llm4seg.config.schema import Data
from llm4seg.data.prepared import Case, Unit
from llm4seg.datasets.describe import Described
from llm4seg.utils.errors import InputError

PLANES = ("sagittal", "coronal", "axial")  # of slices across the axis to the right, the front, the head
MOST_VANISHED = 0.1  # of the cases that have a class; beyond, its absence on the network's grid is worth a warning


class Audit:
    """Checks of a dataset: `case` and `resized` for each case, then `check_cases` and `end` for all of them together.

    `grid` is the network's, in words; with a spacing that is `auto`, known when all cases were seen.
    """

    def __init__(self, dataset: str, classes: tuple[str, ...], section: Data) -> None:
        self.pixels: Counter[str] = Counter()
        self._dataset, self._classes = dataset, classes
        self.grid = " x ".join(map(str, section.size))
        self._remedy = "a larger data.size"
        if section.grid == "spacing":
            self._remedy = "a finer data.spacing"
        self._cases_with: Counter[str] = Counter()
        self._vanished: Counter[str] = Counter()
        self._source_of: dict[str, str] = {}
        self._source_in: dict[Unit, str] = {}  # the first case of each unit
        self._source_across: dict[str, str] = {}  # the first case of each plane that slices lie in
        self._first: Described | None = None

    @property
    def channels(self) -> int:
        """Channels of every image; known once a case was checked."""
        assert self._first is not None
        return self._first.channels

    def case(self, described: Described) -> None:
        """Check one case, whose arrays fit each other."""
        case, first = described.case, self._first or described
        self._check_id(case)
        self._first = first
        if described.channels != first.channels:
            raise InputError(
                f"{case.source}: found {described.channels} channels, but {first.case.source} has "
                f"{first.channels}; all images must have equally many"
            )
        self._source_in.setdefault(case.unit, case.source)
        if described.across is not None:
            self._source_across.setdefault(PLANES[described.across], case.source)
        self.pixels.update(case.pixels)

    def resized(self, pixels: dict[str, int], on_grid: dict[str, int]) -> None:
        """Take in a case's pixels of each class, the original ones and those on the network's grid."""
        self._cases_with.update(name for name in self._classes if pixels[name])
        self._vanished.update(name for name in self._classes if pixels[name] and not on_grid[name])

    def _check_id(self, case: Case) -> None:
        if case.id in self._source_of:
            raise InputError(f"{case.source}: duplicate case id {case.id!r}, also {self._source_of[case.id]}")
        self._source_of[case.id] = case.source

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
