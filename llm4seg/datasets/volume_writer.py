"""The writer of volumes that are resampled to one spacing, each with a shape of its own."""

import math
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from llm4seg.config.schema import Data
from llm4seg.data.label_scheme import LabelScheme
from llm4seg.data.prepared import Case
from llm4seg.datasets.audit import Audit
from llm4seg.datasets.cases import Dataset, RawCase, SeparateCases
from llm4seg.datasets.describe import Described, describe
from llm4seg.datasets.shards import Part, ShardWriter, write_part
from llm4seg.datasets.spacing import Box, crop_box, in_array_order, sides, target_spacing
from llm4seg.datasets.volume_grid import AT_WORK, bytes_at_work, on_grid
from llm4seg.utils.errors import InputError
from llm4seg.utils.logs import bars_off
from llm4seg.utils.processes import in_processes
from llm4seg.utils.threads import in_order

WORTH_PROCESSES = 2**28  # bytes of all images: of less, threads are done before processes have started
READING = 4  # times the bytes of an image: what it takes to read and resample it


@dataclass(frozen=True)
class GridPart:
    """A case with its grid, its pixels of each class there, and the file of its arrays."""

    case: Case
    pixels: dict[str, int]
    part: Part


@dataclass(frozen=True)
class VolumePart:
    """What there is to write of a volume: the file of its original, and, where the spacing is known, of its grid."""

    described: Described
    box: Box
    original: Part
    grid: GridPart | None


@dataclass(frozen=True)
class VolumeWork:
    """What is done with each volume, in any thread or process: its arrays go to files in `folder`."""

    folder: Path
    scheme: LabelScheme
    spacing: tuple[float, ...] | None

    def of_item(self, read: Callable[[Any], Iterable[RawCase]], numbered: tuple[int, Any]) -> VolumePart:
        """A volume that is read here, of an item of `SeparateCases`."""
        number, item = numbered
        return self._parts(number, read(item))

    def of_case(self, numbered: tuple[int, RawCase]) -> VolumePart:
        number, raw = numbered
        return self._parts(number, [raw])

    def _parts(self, number: int, cases: Iterable[RawCase]) -> VolumePart:
        (raw,) = cases  # a reader that is at its end holds no arrays any longer
        raw = replace(raw, image=np.ascontiguousarray(raw.image))
        raw = replace(raw, labels=np.ascontiguousarray(raw.labels))
        described = describe(raw, self.scheme, spatial_dims=3)
        if raw.unit != "mm":
            raise InputError(f"data.grid: found spacing, allowed: resize, since {raw.source} has no spacing in mm")
        box = crop_box(raw.image)
        original = write_part(self.folder / f"original-{number}.part", raw.id, image=raw.image, labels=raw.labels)
        grid = None
        if self.spacing is not None:
            grid = self._on_grid(number, described.case, box, raw.image, raw.labels)
        return VolumePart(described, box, original, grid)

    def read_again(self, numbered: tuple[int, tuple[Case, Box, Path]]) -> GridPart:
        """A volume out of the shard of its original."""
        from safetensors import safe_open

        number, (case, box, shard) = numbered
        with safe_open(shard, framework="numpy") as file:
            image, labels = file.get_tensor(f"{case.id}/image"), file.get_tensor(f"{case.id}/labels")
        return self._on_grid(number, case, box, image, labels)

    def _on_grid(self, number: int, case: Case, box: Box, image_CS: np.ndarray, labels_S: np.ndarray) -> GridPart:
        assert self.spacing is not None
        made = on_grid(self.spacing, case, box, image_CS, labels_S)
        part = write_part(self.folder / f"grid-{number}.part", case.id, True, **made.arrays)
        return GridPart(made.case, self.scheme.counts(made.labels), part)


class VolumeWriter:
    """The writer of volumes at `data.spacing`, as they were measured: normalization is up to a training.

    Volumes that can be read apart from each other, and are large, are prepared in `workers` processes, others in as
    many threads. Where the spacing is `auto`, it follows from all volumes; so each is read a second time, from the
    shards of the originals.
    """

    def __init__(self, section: Data, scheme: LabelScheme, folder: Path, audit: Audit, workers: int = 1) -> None:
        self._folder, self._audit, self._workers = folder, audit, workers
        fixed = None if section.spacing == "auto" else in_array_order(section.spacing)
        self._work = VolumeWork(folder, scheme, fixed)
        self._seen: list[tuple[Case, Box]] = []
        self._original, self._grid = ShardWriter(folder, "native"), ShardWriter(folder, "grid", pages=True)
        self._written: list[tuple[Case, str]] = []
        self._processes = False

    def write(self, dataset: Dataset) -> Generator[tuple[Described, str]]:
        """Write all cases; yields the description of each with the shard of its original arrays."""
        with closing(self._parts(dataset.cases)) as parts:
            for one in tqdm(parts, "prepare", dataset.total, unit="case", disable=bars_off()):
                self._audit.case(one.described)
                self._seen.append((one.described.case, one.box))
                if one.grid is not None:
                    self._take(one.grid)
                yield one.described, self._original.take(one.original)

    def end(self, originals: Sequence[str]) -> tuple[list[tuple[Case, str]], dict[str, Any]]:
        self._original.flush()
        spacing = self._work.spacing
        if spacing is None:
            spacing = target_spacing([case.spacing for case, _ in self._seen], [sides(box) for _, box in self._seen])
            volumes = [(*seen, self._folder / shard) for seen, shard in zip(self._seen, originals, strict=True)]
            work = replace(self._work, spacing=spacing).read_again
            names, needed = [case.source for case, _ in self._seen], [_needed(spacing, case) for case, _ in self._seen]
            with closing(self._results(work, volumes, names, needed)) as parts:
                for one in tqdm(parts, "resample", len(volumes), unit="case", disable=bars_off()):
                    self._take(one)
        self._audit.grid = " x ".join(f"{step:g}" for step in spacing) + " mm (rows, columns, slices)"
        self._grid.flush()
        return self._written, {"spacing": list(spacing)}

    def _parts(self, cases: Iterable[RawCase]) -> Generator[VolumePart]:
        if not isinstance(cases, SeparateCases):
            return in_order(self._work.of_case, enumerate(cases), self._workers, _needed_by_case)
        sizes = [cases.size(item) for item in cases.items]
        self._processes = self._workers > 1 and len(sizes) > 1 and sum(sizes) >= WORTH_PROCESSES
        names, needed = [cases.name(item) for item in cases.items], [READING * size for size in sizes]
        return self._results(partial(self._work.of_item, cases.read), cases.items, names, needed)

    def _results(
        self, work: Callable[[tuple[int, Any]], Any], items: Sequence[Any], names: Sequence[str], needed: Sequence[int]
    ) -> Generator[Any]:
        """The results of `work` of the numbered items, in order."""
        numbered = [*enumerate(items)]
        if self._processes:
            return in_processes(work, numbered, self._workers, lambda one: needed[one[0]], lambda one: names[one[0]])
        return in_order(work, numbered, self._workers, lambda one: needed[one[0]])

    def _take(self, one: GridPart) -> None:
        self._audit.resized(one.case.pixels, one.pixels)
        self._written.append((replace(one.case, grid_pixels=one.pixels), self._grid.take(one.part)))


def _needed_by_case(numbered: tuple[int, RawCase]) -> int:
    return AT_WORK * numbered[1].image.size


def _needed(spacing: Sequence[float], case: Case) -> int:
    """The bytes that a volume takes while it is resampled, the original's among them."""
    return bytes_at_work(case, spacing) + AT_WORK * math.prod(case.shape)
