"""`InputImage`: an image to segment, out of files or memory, as the arrays lie that a model was trained on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from llm4seg.data.preprocessing import UNKNOWN, Preprocessing, View
from llm4seg.datasets.case_files import read_channels
from llm4seg.datasets.geometry import Geometry, geometry, own_view
from llm4seg.datasets.image_data import ImageData, storable
from llm4seg.utils.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

PICTURE = (
    "is a picture, read as its rows and columns are; the model was trained on {view} slices, whose columns run to the "
    "patient's right (of sagittal ones to the back): mirror the picture where it shows them otherwise"
)
DIRECTIONS = {"R": "right", "L": "left", "A": "front", "P": "back", "S": "head", "I": "feet"}
COLORS = 3  # channels, as which a gray picture is read by a model of color pictures


@dataclass(frozen=True)
class InputImage:
    """An image (C, rows, columns[, slices]) in raw intensities.

    `source`: its name in messages. `spacing`: in mm along its axes; None where it is not known. `geometry`: how it lies
    in its file; None for an array. `notices`: what users should know, a line each.
    """

    source: str
    image: np.ndarray
    spacing: tuple[float, ...] | None
    geometry: Geometry | None = None
    notices: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """The spatial shape, in the array's order."""
        return self.image.shape[1:]

    def left_right_axis(self, model: Preprocessing) -> int | None:
        """The axis of the array along which left and right lie, by its file where that says; None: across the slices
        of a 2-D model.
        """
        if self.geometry is None or model.view is None:
            return model.left_right_axis
        columns = self.geometry.array_affine[:3, :3]
        axis = int(np.argmax(np.abs(columns[0]) / np.linalg.norm(columns, axis=0)))
        return axis if axis < model.spatial_dims else None

    def to_file(self, values_S: np.ndarray) -> np.ndarray:
        """Values in the array's order, in the file's own; those of an array as they are."""
        if self.geometry is None:
            return values_S
        flat = values_S.ndim == 2
        back = self.geometry.to_file(values_S[None, ..., None] if flat else values_S[None])[0]
        return np.ascontiguousarray(back[..., 0] if flat else back)


def from_files(
    paths: Sequence[Path], model: Preprocessing, spacing: Sequence[float] | None = None, trained: str = "the model"
) -> InputImage:
    """An image out of its file, or of several that hold a channel or more each; `trained`: the model in messages.

    `spacing`: mm along rows, columns and pages of a picture, whose file cannot say. Raises InputError naming the file.
    """
    return from_image_data(read_channels(tuple(paths)), str(paths[0]), model, spacing, trained)


def from_image_data(
    image: ImageData, source: str, model: Preprocessing, spacing: Sequence[float] | None, trained: str
) -> InputImage:
    """An image out of what a reader of files gave; otherwise as `from_files`."""
    if spacing is not None:
        if image.unit == "mm":
            raise InputError(f"{source}: found a spacing of its own, and one that is given; allowed: one of them")
        _check_spacing(spacing, len(image.shape))
        image = replace(image, affine=image.affine @ np.diag([*spacing, *[1.0] * (4 - len(spacing))]), unit="mm")
    if image.flat and model.spatial_dims == 3:
        raise InputError(f"{source}: is 2-D, allowed: volumes, which {trained} was trained on")
    if image.placed == "picture" and (len(image.values), model.channels) == (1, COLORS):
        image = replace(image, values=np.broadcast_to(image.values, (COLORS, *image.values.shape[1:])))
    _check(image.values, model, source, trained)
    way, notice = _way(image, model, source, trained)
    values = way.to_array(image.values)
    assumed = _assumed(image) if model.view else ()
    return InputImage(
        source=source,
        image=values[..., 0] if image.flat else values,
        spacing=None if image.unit != "mm" else way.spacing[: 2 if image.flat else 3],
        geometry=way,
        notices=tuple(f"{source} {line}" for line in (*image.notices, *assumed, *notice)),
    )


def _way(image: ImageData, model: Preprocessing, source: str, trained: str) -> tuple[Geometry, tuple[str, ...]]:
    """How the array lies in the image's file, and a notice where a model reads its slices along another axis."""
    if image.placed == "picture":
        seen = model.view not in (None, UNKNOWN)
        return geometry(image, None), (PICTURE.format(view=model.view),) if seen else ()
    own = own_view(image)
    if image.flat or (model.spatial_dims == 2 and 1 in image.shape):  # it is one slice, whatever the model reads
        return geometry(image, own or "axial"), _otherwise(own, model)  # see `slicing_view`
    if model.view == UNKNOWN:
        raise InputError(
            f"{trained}: does not say how volumes lie (`view` in model.json), an earlier version wrote it, so that "
            f"{source} cannot be predicted; train it again, or give the volume's array"
        )
    if model.view is None:
        return geometry(image, None), ("is read in the file's order, as the model was trained on pictures",)
    return geometry(image, model.view), _otherwise(own, model) if model.spatial_dims == 2 else ()


def _assumed(image: ImageData) -> tuple[str, ...]:
    """A notice where a file, of a kind that has orientations, says nothing of its own."""
    if image.placed != "unknown":
        return ()
    import nibabel

    axes = " and ".join(DIRECTIONS[code] for code in nibabel.aff2axcodes(image.affine)[: len(image.shape)])
    return (
        f"does not say how it is oriented (no sform, qform or space): its axes are "
        f"taken to run to the patient's {axes}; left and right of its mask are wrong where they do not",
    )


def _otherwise(own: View | None, model: Preprocessing) -> tuple[str, ...]:
    """A notice where an image has slices in another view than the model was trained on."""
    if own is None or model.view in (None, UNKNOWN, own):
        return ()
    return (f"has {own} slices, but the model was trained on {model.view} ones",)


def from_array(
    array: "np.ndarray | Tensor", model: Preprocessing, spacing: Sequence[float] | None, trained: str
) -> InputImage:
    """An image out of memory: ([C,] rows, columns[, slices]). Raises InputError for other shapes, and bad values."""
    if hasattr(array, "detach"):
        tensor = array.detach().cpu()
        array = (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()  # NumPy has no bfloat16
    values: np.ndarray = np.asarray(array)
    values = _with_channels(values, model, trained)
    try:
        values = storable(values)
    except ValueError as error:
        raise InputError(f"image: found {error}") from None
    _check(values, model, "image", trained)
    if spacing is not None:
        _check_spacing(spacing, values.ndim - 1)
    return InputImage("image", values, None if spacing is None else tuple(float(step) for step in spacing))


def _with_channels(values: np.ndarray, model: Preprocessing, trained: str) -> np.ndarray:
    """An array with its axis of channels, which may be left out where there is one channel."""
    shape, channels = values.shape, model.channels
    if 0 not in shape:
        if values.ndim == 4 or (values.ndim == 3 and model.spatial_dims == 2 and shape[0] == channels):
            return values
        if channels == 1 and values.ndim in (model.spatial_dims, 3):
            return values[None]
    axes = "rows, columns" if model.spatial_dims == 2 else "rows, columns, slices"
    raise InputError(f"image: found the shape {shape}, allowed: {trained} reads ({channels}, {axes})")


def _check(values_CS: np.ndarray, model: Preprocessing, source: str, trained: str) -> None:
    if len(values_CS) != model.channels:
        raise InputError(f"{source}: found {len(values_CS)} channels, allowed: {model.channels}, those of {trained}")
    if bad := values_CS.size - np.count_nonzero(np.isfinite(values_CS)):
        raise InputError(f"{source}: the image has {bad} NaN or infinite values")


def _check_spacing(spacing: Sequence[float], dims: int) -> None:
    if len(spacing) != dims or not all(0 < step < math.inf for step in spacing):
        raise InputError(f"spacing: found {[*spacing]}, allowed: {dims} numbers above 0, in mm along the image's axes")
