"""Where the pixels of an image lie: bringing files of any orientation to the same array, and back.

Arrays are (rows, columns, slices) as a person sees them: of an axial view rows run to the back, columns to the right
and slices to the head (right, anterior, superior: RAS). What lies where is decided by affines, as in NIfTI.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from llm4seg.data.preprocessing import View
from llm4seg.datasets.image_data import ImageData

# (axis of RAS, direction) of rows, columns and slices
VIEWS: dict[View, tuple[tuple[int, int], ...]] = {
    "axial": ((1, -1), (0, 1), (2, 1)),
    "coronal": ((2, -1), (0, 1), (1, 1)),
    "sagittal": ((2, -1), (1, -1), (0, 1)),
}
TOLERANCE = 1e-2  # of an affine's entries, in voxels
HALF_VOXEL = 0.5  # how far the corners may be off within that tolerance
MOST_OFF = 0.25  # how far a mask's middle may be from its image's, of the image's width; beyond, it is another case's


@dataclass(frozen=True)
class Geometry:
    """How an array lies in its file: its axis k is the file's axis `axes[k]`, backwards where `flips[k]`.

    `shape` and `affine` (4, 4; indices to RAS in mm) are the file's.
    """

    shape: tuple[int, ...]
    affine: tuple[tuple[float, ...], ...]
    axes: tuple[int, ...]
    flips: tuple[bool, ...]

    def to_array(self, values_CS: np.ndarray) -> np.ndarray:
        """Values (C, *S) in the file's order, in the array's."""
        turned = values_CS.transpose(0, *(axis + 1 for axis in self.axes))
        return np.flip(turned, self._flipped())

    def to_file(self, array_CS: np.ndarray) -> np.ndarray:
        """The inverse of `to_array`."""
        order = np.argsort(self.axes)
        return np.flip(array_CS, self._flipped()).transpose(0, *(axis + 1 for axis in order))

    def _flipped(self) -> tuple[int, ...]:
        return tuple(k + 1 for k, flip in enumerate(self.flips) if flip)

    @property
    def array_affine(self) -> np.ndarray:
        """The affine (4, 4) of the array's own indices."""
        to_file = np.zeros((4, 4))
        to_file[3, 3] = 1
        for k, (axis, flip) in enumerate(zip(self.axes, self.flips, strict=True)):
            to_file[axis, k] = -1 if flip else 1
            to_file[axis, 3] = self.shape[axis] - 1 if flip else 0
        return np.array(self.affine) @ to_file

    @property
    def across(self) -> int:
        """The axis of RAS that is nearest to the array's last one."""
        return int(np.abs(self.array_affine[:3, 2]).argmax())

    @property
    def spacing(self) -> tuple[float, ...]:
        """The distance of neighbors along each of the array's axes."""
        return tuple(float(size) for size in np.linalg.norm(self.array_affine[:3, :3], axis=0))

    @property
    def view(self) -> View | None:
        """The view that the array is of; None: none of them, as of pictures."""
        import nibabel

        found = nibabel.orientations.io_orientation(np.array(self.affine))
        ways = tuple(
            (int(found[axis, 0]), int(-found[axis, 1] if flip else found[axis, 1]))
            for axis, flip in zip(self.axes, self.flips, strict=True)
        )
        return next((view for view, wanted in VIEWS.items() if wanted == ways), None)


def common_view(geometries: Iterable[Geometry]) -> View | None:
    """The view of most of these arrays, of equally many the first; None where most are pictures, or there are none."""
    counts = Counter(one.view for one in geometries)
    return max(counts, key=lambda view: counts[view]) if counts else None


def geometry(image: ImageData, view: View | None) -> Geometry:
    """How a view's array lies in the image's file; None: the file's own order, as pictures have it."""
    rows = tuple(tuple(float(value) for value in row) for row in image.affine)
    as_filed = Geometry(image.values.shape[1:], rows, (0, 1, 2), (False, False, False))
    if view is None or image.placed == "picture":
        return as_filed
    axes, flips = _nearest_axes(image.affine, VIEWS[view])
    return replace(as_filed, axes=axes, flips=flips)


def slicing_view(image: ImageData) -> View:
    """The view of an image's slices: across the axis that has one voxel alone, else that of the largest spacing.

    Where several axes have the largest spacing, slices are axial.
    """
    return own_view(image) or "axial"


def own_view(image: ImageData) -> View | None:
    """As `slicing_view`; None where several axes have the largest spacing, so that an image has slices in any view."""
    import nibabel

    single = [axis for axis in range(3) if image.values.shape[1 + axis] == 1]
    sizes = np.linalg.norm(image.affine[:3, :3], axis=0)
    largest = [axis for axis in range(3) if sizes[axis] > (1 - 1e-3) * sizes.max()]
    across = single if len(single) == 1 else largest
    ras_axis = nibabel.orientations.io_orientation(image.affine)[:, 0].astype(int)
    views: tuple[View, ...] = ("sagittal", "coronal", "axial")
    return views[ras_axis[across[0]]] if len(across) == 1 else None


def _nearest_axes(affine: np.ndarray, wanted: tuple[tuple[int, int], ...]) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """Of each wanted (axis, direction) the axis of the indices that is nearest to it, and whether it runs against."""
    import nibabel

    found = nibabel.orientations.io_orientation(affine)
    axes = tuple(int(np.flatnonzero(found[:, 0] == axis)[0]) for axis, _ in wanted)
    flips = tuple(bool(found[k, 1] != direction) for k, (_, direction) in zip(axes, wanted, strict=True))
    return axes, flips


def in_order_of(image: ImageData, mask: ImageData, names: tuple[str, str]) -> tuple[np.ndarray, str | None]:
    """A mask's values in the order of its image's file, and a notice where both do not lie at the same place.

    The nearest quarter turns and mirrorings are by the affines; `names` are those of the mask and the image. Raises
    ValueError where the mask had to be turned, and still lies elsewhere then: one of the affines must be wrong; and
    where it lies more than MOST_OFF of the image's width off along an axis.
    """
    import nibabel

    turned = geometry(mask, None)
    unknown = "unknown" in (image.placed, mask.placed) and "picture" not in (image.placed, mask.placed)
    if not unknown:
        relative = np.linalg.inv(image.affine) @ mask.affine
        axes, flips = _nearest_axes(relative, ((0, 1), (1, 1), (2, 1)))
        turned = replace(turned, axes=axes, flips=flips)
    values = turned.to_array(mask.values)
    if values.shape[1:] != image.values.shape[1:]:
        return values, None  # the caller's to refuse
    if image.placed == mask.placed == "file":
        difference = _difference(np.array(image.affine), turned.array_affine, image.values.shape[1:], names)
        if difference and turned != geometry(mask, None):
            codes = ["".join(nibabel.aff2axcodes(one.affine)) for one in (mask, image)]
            raise ValueError(f"oriented {codes[0]}, the image {codes[1]}; turned to it, it {difference}")
        if (share := _off_center(np.array(image.affine), turned.array_affine, image.values.shape[1:])) > MOST_OFF:
            raise ValueError(f"{difference}, its middle by {share:.0%} of the image's width, as another case's would")
        return values, difference and f"{names[0]} {difference}; it is used voxel by voxel"
    if image.placed != mask.placed and (unknown or any(turned.flips)):
        return values, _assumption(image, mask, names)
    return values, None


def _difference(image: np.ndarray, mask: np.ndarray, shape: tuple[int, ...], names: tuple[str, str]) -> str | None:
    """How far a mask's affine is off, in mm and degrees; None within the tolerance."""
    used = [axis for axis in range(3) if shape[axis] > 1]
    off = (np.linalg.inv(image) @ mask - np.eye(4))[:3]
    corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)]) * [*(np.array(shape) - 1), 1]
    far = np.abs(corners @ off.T).max()
    if np.abs(off[:, [*used, 3]]).max(initial=0) <= TOLERANCE and far <= HALF_VOXEL:
        return None
    distance = np.linalg.norm(corners @ (mask - image)[:3].T, axis=1).max()
    sizes = [np.linalg.norm(affine[:3, :3], axis=0) for affine in (mask, image)]
    directions = [affine[:3, :3] / size for affine, size in zip((mask, image), sizes, strict=True)]
    cosine = (np.trace(directions[1].T @ directions[0]) - 1) / 2
    angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    voxels = " and ".join(" x ".join(f"{size:.4g}" for size in each) + " mm" for each in sizes)
    return (
        f"lies up to {distance:.3g} mm off its image {names[1]} and is turned by {angle:.3g} degrees (voxels: {voxels})"
    )


def _off_center(image: np.ndarray, mask: np.ndarray, shape: tuple[int, ...]) -> float:
    """How far the middle of a mask is off its image's, along the image's axes of several voxels, of their widths."""
    middle = np.array([*(np.array(shape) - 1) / 2, 1])
    off = (np.linalg.inv(image) @ mask @ middle - middle)[:3]
    return max((abs(float(off[axis])) / shape[axis] for axis in range(3) if shape[axis] > 1), default=0.0)


def _assumption(image: ImageData, mask: ImageData, names: tuple[str, str]) -> str:
    without = names[0] if image.placed == "file" else names[1]
    if "picture" in (image.placed, mask.placed):
        how = "as a picture, its rows running to the back and its columns to the left"
    else:
        how = "in the order of the other's voxels"
    return f"{without} does not say how it is oriented: {names[0]} and {names[1]} were matched {how}"
