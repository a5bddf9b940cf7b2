"""`Preprocessing`: how a raw image becomes a network's input, as model.json has it."""

from dataclasses import dataclass
from typing import Any, Literal, Self

from llm4seg.data.intensity import Intensity

View = Literal["axial", "coronal", "sagittal"]
UNKNOWN: Literal["unknown"] = "unknown"  # the view of data and models of earlier versions, which did not record it


@dataclass(frozen=True)
class Preprocessing:
    """What a network reads: images of `channels` in `spatial_dims`, on which grid, and how they are normalized.

    `size`: of all images, or with a `spacing` (mm along rows, columns and slices) that of patches of each volume, whose
    `normalization` then has the statistics of the training part. `intensity` and `window` as the parameters of `data`;
    None for both, and for the size: a converted checkpoint does not record it. `view`: how the array lies in files that
    know left from right (see `datasets.geometry`); None: in the file's own order, as pictures do. `paired`: labels of
    left and right, which a mirroring along `left_right_axis` exchanges (None: across the slices of a 2-D network).
    `cropped`: volumes were cropped to what is no empty margin before anything else.
    """

    spatial_dims: int
    channels: int
    size: tuple[int, ...] | None
    spacing: tuple[float, ...] | None
    intensity: str | None
    window: tuple[float, float] | None
    normalization: Intensity | None
    view: View | Literal["unknown"] | None
    unit: str | None
    paired: tuple[tuple[int, int], ...] = ()
    cropped: bool = False

    @property
    def grid(self) -> str:
        """As `data.grid`."""
        return "resize" if self.spacing is None else "spacing"

    @property
    def left_right_axis(self) -> int | None:
        """The axis of the array along which left and right lie: the columns, of a sagittal view the slices."""
        if self.view != "sagittal":
            return 1
        return 2 if self.spatial_dims == 3 else None

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Self:
        """Of the entry `data` of model.json, also as earlier versions wrote it."""
        size, spacing, window, plain = (values.get(key) for key in ("size", "spacing", "window", "normalization"))
        return cls(
            spatial_dims=values["spatial_dims"],
            channels=values["channels"],
            size=size and tuple(size),
            spacing=spacing and tuple(spacing),
            intensity=values.get("intensity"),
            window=window and (window[0], window[1]),
            normalization=plain and Intensity.parse(plain),
            view=values.get("view", UNKNOWN),
            unit=values.get("unit"),
            paired=tuple((left, right) for left, right in values.get("paired", ())),
            cropped=values.get("cropped", False),
        )

    def plain(self) -> dict[str, Any]:
        """Entries for a JSON file; a spacing and its normalization only where there is one."""
        entries: dict[str, Any] = {
            "spatial_dims": self.spatial_dims,
            "channels": self.channels,
            "grid": self.grid,
            "size": self.size and list(self.size),
            "intensity": self.intensity,
            "window": self.window and list(self.window),
            "view": self.view,
            "unit": self.unit,
            "paired": [list(pair) for pair in self.paired],
            "left_right_axis": self.left_right_axis,
            "cropped": self.cropped,
        }
        if self.spacing is not None:
            assert self.normalization is not None
            entries |= {"spacing": list(self.spacing), "normalization": self.normalization.plain()}
        return entries
