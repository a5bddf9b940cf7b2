"""What the manifest and the audit need to know of a case's arrays, which need not be in memory any longer then."""

import hashlib
from dataclasses import dataclass

import numpy as np

from llm4seg.data.label_scheme import LabelScheme
from llm4seg.data.prepared import Case
from llm4seg.datasets.cases import RawCase
from llm4seg.datasets.geometry import Geometry
from llm4seg.utils.errors import InputError


@dataclass(frozen=True)
class Described:
    """A case of the manifest with its `channels`, the axis of RAS `across` its slices, and its file's notices.

    `geometry`: how it, or its volume, lies in its file.
    """

    case: Case
    channels: int
    across: int | None
    geometry: Geometry | None
    notices: tuple[str, ...]


def describe(raw: RawCase, scheme: LabelScheme, spatial_dims: int) -> Described:
    """Raises InputError for an image that does not fit its mask, or has values that are no numbers."""
    _check_arrays(raw, spatial_dims)
    case = Case(
        id=raw.id,
        group=raw.group,
        source=raw.source,
        volume=raw.volume,
        position=raw.position,
        shape=raw.labels.shape,
        spacing=raw.spacing,
        pixels=scheme.counts(raw.labels),
        sha256=_sha256_array(raw.image),
        unit=raw.unit,
        volume_slices=raw.volume_slices,
        slice_spacing=raw.slice_spacing,
    )
    way = raw.geometry
    across = way.across if way is not None and raw.volume is not None else None
    return Described(case, len(raw.image), across, way, raw.notices)


def _check_arrays(raw: RawCase, spatial_dims: int) -> None:
    if raw.image.shape[1:] != raw.labels.shape:
        sizes = f"image size {raw.image.shape[1:]} differs from mask size {raw.labels.shape}"
        raise InputError(f"{raw.source}: {sizes}")
    assert raw.labels.ndim == len(raw.spacing) == spatial_dims
    if raw.image.dtype.kind == "f" and (bad := int((~np.isfinite(raw.image)).sum())):
        raise InputError(f"{raw.source}: the image of case {raw.id!r} has {bad} NaN or infinite values")


def _sha256_array(array: np.ndarray) -> str:
    """Hex sha256 of an array's dtype, shape and values."""
    digest = hashlib.sha256(f"{array.dtype} {array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
