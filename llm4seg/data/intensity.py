"""`Intensity`: how raw intensities of volumes become the network's input, and the statistics that this takes.

Volumes are stored as they are and normalized when they are read, so that the statistics of `ct` come from the training
part alone.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:  # torch is needed by no stage before training
    from torch import Tensor

PERCENTILES = (0.005, 0.995)
SMALLEST = 1e-8  # of a standard deviation or a range to divide by
BYTE = (0.0, 255.0)


@dataclass(frozen=True)
class VolumeGrid:
    """A volume on the network's grid: what was resampled to it, and what is there.

    `crop`: first and last index (not included) along each axis of the original array; `shape`: voxels on the grid;
    `mean` and `std` of each channel; `range`: the smallest and the largest value, of 8-bit images 0 and 255;
    `voxels`: the number of voxels of each label but background and ignored ones; `dtype` of the image's values, and
    voxels of a `block` along each axis, see `data.tiles`.
    """

    crop: tuple[tuple[int, int], ...]
    shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    range: tuple[float, float]
    voxels: dict[int, int]
    dtype: str
    block: tuple[int, ...]

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Self:
        return cls(
            crop=tuple((low, high) for low, high in values["crop"]),
            shape=tuple(values["shape"]),
            mean=tuple(values["mean"]),
            std=tuple(values["std"]),
            range=(values["range"][0], values["range"][1]),
            voxels={int(label): count for label, count in values["voxels"].items()},  # JSON's keys are text
            dtype=values["dtype"],
            block=tuple(values["block"]),
        )


@dataclass(frozen=True)
class Foreground:
    """Statistics of one channel over labeled voxels: PERCENTILES, mean and standard deviation."""

    low: float
    high: float
    mean: float
    std: float


@dataclass(frozen=True)
class Intensity:
    """A normalization: `kind` as in `data.intensity`, with its window, or the statistics of each channel for `ct`."""

    kind: str
    window: tuple[float, float] | None = None
    foreground: tuple[Foreground, ...] = ()

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Self:
        window = values["window"] and (values["window"][0], values["window"][1])
        return cls(values["kind"], window, tuple(Foreground(**one) for one in values["foreground"]))

    def plain(self) -> dict[str, Any]:
        return asdict(self)

    def __call__(self, image_CS: "Tensor", grid: VolumeGrid) -> "Tensor":
        """The normalized image, float32, of a volume or a part of it; `grid` is the whole volume's."""
        import torch

        image = image_CS.to(torch.float32, copy=True)  # what was read may be the memory map itself
        for channel, (low, high, shift, scale) in enumerate(self._of_channels(grid, len(image_CS))):
            if low is not None:
                image[channel].clamp_(low, high)
            image[channel].sub_(shift).div_(scale)
        return image

    def _of_channels(self, grid: VolumeGrid, channels: int) -> list[tuple[float | None, float | None, float, float]]:
        """For each channel the lowest and the highest value, what is subtracted, and what divides the rest."""
        match self.kind:
            case "zscore":
                of_case = zip(grid.mean, grid.std, strict=True)
                return [(None, None, mean, std if std > SMALLEST else 1.0) for mean, std in of_case]
            case "ct":
                assert len(self.foreground) == channels
                return [(one.low, one.high, one.mean, max(one.std, SMALLEST)) for one in self.foreground]
            case "window":
                assert self.window is not None
                low, high = self.window
                return [(low, high, low, high - low)] * channels
            case _:
                low, high = grid.range
                return [(None, None, low, max(high - low, SMALLEST))] * channels


def foreground_statistics(samples: Iterable[tuple[np.ndarray, int]]) -> tuple[Foreground, ...]:
    """Statistics of each channel over all labeled voxels of some cases; none where nothing is labeled.

    `samples`: of each case, values (C, F) drawn from its labeled voxels, and how many voxels those are.
    """
    known = [(values, count) for values, count in samples if count]
    if not known:
        return ()
    values_CF = np.concatenate([values for values, _ in known], axis=1).astype(np.float64)
    weights = np.concatenate([np.full(values.shape[1], count / values.shape[1]) for values, count in known])
    return tuple(_weighted(values_F, weights) for values_F in values_CF)


def _weighted(values: np.ndarray, weights: np.ndarray) -> Foreground:
    order = np.argsort(values, kind="stable")
    below = np.cumsum(weights[order])
    low, high = (float(values[order][np.searchsorted(below, share * below[-1])]) for share in PERCENTILES)
    mean = float(np.average(values, weights=weights))
    return Foreground(low, high, mean, float(np.sqrt(np.average((values - mean) ** 2, weights=weights))))
