"""`Dataset` and `RawCase`: a dataset's description, and its cases as published."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from llm4seg.data.label_scheme import LabelScheme
from llm4seg.data.prepared import SplitLists, Unit
from llm4seg.data.preprocessing import View
from llm4seg.datasets.geometry import Geometry


@dataclass(frozen=True)
class RawCase:
    """An image, slice or volume with its labels, as published.

    `image` is (C, *shape) in raw intensities, `labels` uint8 (*shape), which the dataset's LabelScheme explains.
    Axes are (rows, columns) or (rows, columns, slices); `spacing` is along each of them, in `unit`: mm, or px where the
    size of a pixel is not known. Cases of one `group` (a patient) stay in one part of a split. `position` is a slice's
    index in its `volume`, which has `volume_slices` of them at a distance of `slice_spacing`, counting those that are
    left out. `notices`: what users should know of its files, a line each. `geometry`: how it, or the volume that a
    slice is of, lies in its file.
    """

    id: str
    group: str
    source: str
    image: np.ndarray
    labels: np.ndarray
    spacing: tuple[float, ...]
    volume: str | None = None
    position: int | None = None
    unit: Unit = "mm"
    notices: tuple[str, ...] = ()
    geometry: Geometry | None = None
    volume_slices: int | None = None
    slice_spacing: float | None = None


@dataclass(frozen=True)
class SeparateCases:
    """Cases that other processes can read, too: `read` gives those of an item, and like the items it pickles.

    `name`: what an error calls an item. `size`: about how many bytes its image has in memory.
    """

    read: Callable[[Any], Iterable[RawCase]]
    items: Sequence[Any]
    name: Callable[[Any], str]
    size: Callable[[Any], int]

    def __iter__(self) -> Iterator[RawCase]:
        for item in self.items:
            yield from self.read(item)


@dataclass(frozen=True)
class Dataset:
    """A dataset that is read case by case; `total` is the number of cases where it is known in advance. `notices`: what
    users should know of its files, a line each. `official`: the split that its owner publishes. `view`: how the arrays
    lie in files of the same kind, where no case has a `geometry`; `cropped`: whether volumes are files' `crop_box`.
    `files`: an image file of each case, where a reader can name them before it reads any.

    Downloading and reading begin with the first case.
    """

    name: str
    license: str
    citation: str
    note: str
    scheme: LabelScheme
    cases: Iterable[RawCase]
    total: int | None = None
    notices: tuple[str, ...] = ()
    official: SplitLists | None = None
    view: View | None = None
    cropped: bool = False
    files: tuple[Path, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        return self.scheme.classes


def slices(volume: RawCase) -> Iterator[RawCase]:
    """The 2-D slices of a volume along its last axis, all in the volume's group."""
    count = volume.labels.shape[-1]
    for position in range(count):
        yield RawCase(
            id=f"{volume.id}-{position:03d}",
            group=volume.group,
            source=volume.source,
            image=np.ascontiguousarray(volume.image[..., position]),
            labels=np.ascontiguousarray(volume.labels[..., position]),
            spacing=volume.spacing[:-1],
            volume=volume.id,
            position=position,
            unit=volume.unit,
            notices=volume.notices if position == 0 else (),
            geometry=volume.geometry,
            volume_slices=count,
            slice_spacing=volume.spacing[-1],
        )


def flat(case: RawCase) -> RawCase:
    """A 2-D case out of a volume of one slice."""
    image, labels = case.image[..., 0], case.labels[..., 0]
    return replace(case, image=image, labels=labels, spacing=case.spacing[:-1])


def has_labels(case: RawCase) -> bool:
    """Whether anything but background is labeled."""
    return bool(case.labels.any())


def is_blank(case: RawCase) -> bool:
    """Whether the image is constant and nothing is labeled: padding around a scan, equal in every patient."""
    return is_constant(case.image) and not has_labels(case)


def is_constant(image: np.ndarray) -> bool:
    """Whether all values of an image are one."""
    return bool((image == image.flat[0]).all())
