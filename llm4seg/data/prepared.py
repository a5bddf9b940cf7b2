"""`Prepared`: the dataset that `prepare` wrote, as memory-mapped arrays and their manifest."""

import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from llm4seg.data.intensity import Intensity, VolumeGrid, foreground_statistics
from llm4seg.data.label_scheme import LabelScheme
from llm4seg.data.preprocessing import UNKNOWN, Preprocessing, View
from llm4seg.data.tiles import block_type, read_box
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import read_json

if TYPE_CHECKING:  # torch is needed only to read arrays; `split` reads none
    from torch import Tensor

MANIFEST = "manifest.json"
Unit = Literal["mm", "px"]  # of distances: pixels where their size is not known
PARTS = ("train", "val", "test")
MOST_VOXELS = 10_000  # of a label whose places are stored, and of a case's labeled voxels whose intensities are
FOLDER_TEST = "data.folder.test"  # begins the source of the split that a user's own folder of test images makes


@dataclass(frozen=True)
class Case:
    """A case of the manifest; `shape` and `spacing` (in `unit`) are the original image's.

    `pixels` counts the original pixels of each foreground class, `grid_pixels` those on the network's grid (empty where
    an earlier version wrote it). `sha256` is of the original image's array, so that equal images have equal hashes.
    `position` is a slice's index in its `volume`, which has `volume_slices` of them at a distance of `slice_spacing`,
    counting those that are no cases (both None where an earlier version wrote it). `grid` is there where the data have
    a spacing, and not one size.
    """

    id: str
    group: str
    source: str
    volume: str | None
    position: int | None
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    pixels: dict[str, int]
    sha256: str
    unit: Unit = "mm"
    grid_pixels: dict[str, int] = field(default_factory=dict)
    volume_slices: int | None = None
    slice_spacing: float | None = None
    grid: VolumeGrid | None = None

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Self:
        grid = VolumeGrid.parse(values["grid"]) if "grid" in values else None
        return cls(**{**values, "shape": tuple(values["shape"]), "spacing": tuple(values["spacing"]), "grid": grid})

    def plain(self) -> dict[str, Any]:
        """Entries for a JSON file; the grid only where there is one."""
        return {name: value for name, value in asdict(self).items() if (name, value) != ("grid", None)}

    @property
    def on_grid(self) -> VolumeGrid:
        """The grid of a volume of data with a spacing."""
        assert self.grid is not None, f"{self.id}: resized, not resampled to a spacing"
        return self.grid


@dataclass(frozen=True)
class SplitLists:
    """A split that somebody else made, as lists of ids: of cases, or of volumes for all of their slices.

    `source`: the lists' file or origin. `parts`: ids of train, val and test, of which some may be missing. `folds`: the
    same of each fold; test may stand in `parts` for all of them. `predefined_split` says what becomes of missing parts.
    """

    source: str
    parts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    folds: tuple[dict[str, tuple[str, ...]], ...] = ()

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Self:
        def parts(lists: dict[str, Any]) -> dict[str, tuple[str, ...]]:
            return {part: tuple(lists[part]) for part in PARTS if part in lists}

        return cls(values["source"], parts(values["parts"]), tuple(map(parts, values["folds"])))


class Prepared:
    """The prepared dataset, opened. Shards are opened at the first read in each process, so that it can be pickled.

    Arrays are views of the memory map, without a copy: do not change them in place. Data with a `spacing` hold volumes
    of their own shapes, as they were measured: they are normalized when they are read, see `for_network`.
    Raises InputError naming the file when the manifest or a shard is missing or broken, or a case is unknown.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        manifest = read_json(folder / MANIFEST)
        try:
            self._describe(manifest)
        except (KeyError, TypeError) as error:
            raise InputError(
                f"{folder / MANIFEST}: not a manifest that `prepare` wrote, or an earlier version's ({error!r}); "
                "run `dvc repro prepare`"
            ) from None
        self._shards: dict[str, Any] = {}
        self.normalization: Intensity | None = None  # see `for_network`

    def _describe(self, manifest: dict[str, Any]) -> None:
        self.name: str = manifest["name"]
        self.license: str = manifest["licence"]
        self.citation: str = manifest["citation"]
        self.note: str = manifest["note"]
        self.spatial_dims: int = manifest["spatial_dims"]
        self.channels: int = manifest["channels"]
        self.scheme = LabelScheme.parse(manifest)
        # of the network's input: that of all images, or where there is a spacing, once it is known, that of the patches
        self.size: tuple[int, ...] = tuple(manifest.get("size", ()))
        self.spacing: tuple[float, ...] | None = tuple(manifest["spacing"]) if "spacing" in manifest else None
        self.intensity: str | None = manifest.get("intensity")  # `data.intensity` when it was written
        self.window: tuple[float, ...] | None = tuple(manifest["window"]) if "window" in manifest else None
        self.paired: tuple[tuple[int, int], ...] = tuple(  # labels of left and right
            (left, right) for left, right in manifest.get("paired", ())
        )
        self.notices: tuple[str, ...] = tuple(manifest.get("notices", ()))  # of the files, a line each
        # how most arrays lie in their files, and whether the dataset's volumes come without their margins
        self.view: View | Literal["unknown"] | None = manifest.get("view", UNKNOWN)
        self.cropped: bool = manifest.get("cropped", False)
        self.geometry: dict[str, dict[str, Any]] = manifest.get("geometry", {})  # by case or volume
        self.official: SplitLists | None = _lists(manifest, "official")  # as the data's owner publishes it
        self.split_file: SplitLists | None = _lists(manifest, "split_file")  # as `split.file` has it
        self.sha256: str = manifest["sha256"]
        self.cases: dict[str, Case] = {}
        self._shards_of: dict[str, dict[str, str]] = {}
        for entry in manifest["cases"]:
            shards = entry["shards"]
            case = Case.parse({name: value for name, value in entry.items() if name != "shards"})
            self.cases[case.id], self._shards_of[case.id] = case, shards

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of classes, or regions."""
        return self.scheme.classes

    @property
    def preprocessing(self) -> Preprocessing:
        """How a raw image becomes what a network reads of these data; with a spacing, after `for_network`."""
        return Preprocessing(
            spatial_dims=self.spatial_dims,
            channels=self.channels,
            size=self.size,
            spacing=self.spacing,
            intensity=self.intensity,
            window=None if self.window is None else (self.window[0], self.window[1]),
            normalization=self.normalization,
            view=self.view,
            unit=distance_unit(self.cases.values()),
            paired=self.paired,
            cropped=self.cropped,
        )

    def left_right_axis(self, case_id: str) -> int | None:
        """The axis of a case's array along which left and right lie: by its file's affine, else the columns.

        None: across its slices.
        """
        way = self.geometry.get(self.cases[case_id].volume or case_id)
        if way is None:
            return 1
        columns = [[row[axis] for row in way["affine"][:3]] for axis in way["axes"]]
        to_right = [abs(x) / math.hypot(x, y, z) for x, y, z in columns]
        axis = to_right.index(max(to_right))
        return axis if axis < self.spatial_dims else None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_shards": {}}

    def for_network(self, patch: Sequence[int], intensity: Intensity) -> Self:
        """Of data with a spacing, these data as a network reads them: in patches of one size, normalized in one way."""
        assert self.spacing is not None
        read = copy.copy(self)
        read.size, read.normalization = tuple(patch), intensity
        return read

    def intensity_of(self, case_ids: Iterable[str]) -> Intensity:
        """The normalization of `data.intensity`; the statistics that `ct` needs are those of these cases alone.

        Raises InputError where none of them has a labeled voxel.
        """
        assert self.intensity is not None
        window = (self.window[0], self.window[1]) if self.window else None
        if self.intensity != "ct":
            return Intensity(self.intensity, window)
        counts = {case_id: sum(self.cases[case_id].on_grid.voxels.values()) for case_id in case_ids}
        samples = ((self._tensor(case_id, "foreground").numpy(), count) for case_id, count in counts.items())
        statistics = foreground_statistics(samples)
        if not statistics:
            raise InputError(
                "data.intensity: found ct, but nothing is labeled in the cases that its statistics are taken from; "
                "allowed: zscore, window or unit"
            )
        return Intensity(self.intensity, window, statistics)

    def resampled(self, case_id: str) -> "tuple[Tensor, Tensor]":
        """The network's input and target: image float32 (C, *size), normalized, and labels uint8 (*size).

        With a spacing, both of the whole volume, (C, *shape) and (*shape) with the shape of its own grid.
        """
        if self.spacing is None:
            return self._read("grid", case_id)
        shape = self._case(case_id).on_grid.shape
        return self._box(case_id, [0] * len(shape), shape)

    def patch(self, case_id: str, start: Sequence[int]) -> "tuple[Tensor, Tensor]":
        """A patch of `size` from a place on the volume's grid: image float32 (C, *size), normalized, and labels uint8.

        Where it lies outside, the image is 0 and the labels are background.
        """
        from torch.nn.functional import pad

        shape = self._case(case_id).on_grid.shape
        stop = [first + side for first, side in zip(start, self.size, strict=True)]
        low = [max(first, 0) for first in start]
        high = [min(last, side) for last, side in zip(stop, shape, strict=True)]
        image_CS, labels_S = self._box(case_id, low, high)
        around = [
            margin
            for first, last, inner, outer in reversed(list(zip(start, stop, low, high, strict=True)))
            for margin in (inner - first, last - outer)
        ]
        return pad(image_CS, around), pad(labels_S, around)

    def _box(self, case_id: str, start: Sequence[int], stop: Sequence[int]) -> "tuple[Tensor, Tensor]":
        """The part of a volume on its grid from `start` to `stop`, normalized, and its labels."""
        assert self.normalization is not None, "for_network says how"
        grid = self._case(case_id).on_grid
        block = block_type(self.channels, grid.dtype, grid.block)
        image_CS, labels_S = read_box(self._tensor(case_id, "tiles"), block, start, stop)
        return self.normalization(image_CS, grid), labels_S

    def labeled_voxels(self, case_id: str) -> "dict[int, Tensor]":
        """Where some voxels of each label lie on the volume's grid, (V, dims); not of background and ignored ones."""
        voxels_V3 = self._tensor(case_id, "voxels")
        kept = [min(count, MOST_VOXELS) for count in self.cases[case_id].on_grid.voxels.values()]
        return dict(zip(self.cases[case_id].on_grid.voxels, voxels_V3.split(kept), strict=True))

    def original(self, case_id: str) -> "tuple[Tensor, Tensor]":
        """The original case: image (C, *shape) in raw intensities, and labels uint8 (*shape)."""
        return self._read("native", case_id)

    def _case(self, case_id: str) -> Case:
        if case_id not in self.cases:
            raise InputError(f"{self.folder}: has no case {case_id!r}")
        return self.cases[case_id]

    def _read(self, kind: str, case_id: str) -> "tuple[Tensor, Tensor]":
        return self._tensor(case_id, "image", kind), self._tensor(case_id, "labels", kind)

    def _tensor(self, case_id: str, what: str, kind: str = "grid") -> "Tensor":
        from safetensors import SafetensorError

        name = self._shards_of[self._case(case_id).id][kind]
        try:
            tensor: Tensor = self._open(name).get_tensor(f"{case_id}/{what}")
            return tensor
        except (SafetensorError, FileNotFoundError) as error:
            raise InputError(
                f"{self.folder / name}: cannot be read: {error}; delete {self.folder} and run `dvc repro prepare`"
            ) from None

    def _open(self, name: str) -> Any:
        from safetensors import safe_open

        if name not in self._shards:
            self._shards[name] = safe_open(self.folder / name, framework="pt")
        return self._shards[name]


def _lists(manifest: dict[str, Any], key: str) -> SplitLists | None:
    return SplitLists.parse(manifest[key]) if key in manifest else None


def distance_unit(cases: Iterable[Case]) -> str:
    """The unit of these cases' distances: "mm", "px", or "mm or px" where they differ."""
    return " or ".join(sorted({case.unit for case in cases}))


def duplicates(cases: Iterable[Case]) -> int:
    """The number of cases whose image equals an earlier case's."""
    hashes = [case.sha256 for case in cases]
    return len(hashes) - len(set(hashes))
