"""`Dataset` and `RawCase`: the description of a dataset, and its cases as their owner gave them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class RawCase:
    """One picture, slice or volume with its labels, as its owner gave it.

    `image` is (C, *shape) in the owner's intensities, `labels` uint8 (*shape) with label k + 1 for the k-th class.
    Axes are (rows, columns) or (rows, columns, slices); `spacing` is in mm along each of them. Cases of one `group`
    (a patient) are never split up; `position` is a slice's index in its `volume`.
    """

    id: str
    group: str
    source: str
    image: np.ndarray
    labels: np.ndarray
    spacing: tuple[float, ...]
    volume: str | None = None
    position: int | None = None


@dataclass(frozen=True)
class Dataset:
    """A dataset that can be read case by case. Reading, and downloading, begin with the first case asked for."""

    name: str
    license: str
    citation: str
    note: str
    classes: tuple[str, ...]
    cases: Iterator[RawCase]
    total: int | None = None


def slices(volume: RawCase) -> Iterator[RawCase]:
    """The 2-D slices of a volume along its last axis, all in the volume's group."""
    for position in range(volume.labels.shape[-1]):
        yield RawCase(
            id=f"{volume.id}-{position:03d}",
            group=volume.group,
            source=volume.source,
            image=np.ascontiguousarray(volume.image[..., position]),
            labels=np.ascontiguousarray(volume.labels[..., position]),
            spacing=volume.spacing[:-1],
            volume=volume.id,
            position=position,
        )


def has_labels(case: RawCase) -> bool:
    """Whether anything but background is labelled."""
    return bool(case.labels.any())


def is_blank(case: RawCase) -> bool:
    """Whether the image is constant and nothing is labelled: padding around a scan, equal in every patient."""
    return bool((case.image == case.image.flat[0]).all()) and not has_labels(case)
