"""`Prepared`: the dataset that `prepare` wrote, as memory-mapped arrays and their manifest."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from llm4seg.data.label_scheme import LabelScheme
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import read_json

if TYPE_CHECKING:  # torch is needed only to read arrays; `split` reads none
    from torch import Tensor

MANIFEST = "manifest.json"
Unit = Literal["mm", "px"]  # of distances: pixels where their size is not known
PARTS = ("train", "val", "test")
FOLDER_TEST = "data.folder.test"  # begins the source of the split that a user's own folder of test images makes


@dataclass(frozen=True)
class Case:
    """A case of the manifest; `shape` and `spacing` (in `unit`) are the original image's.

    `pixels` counts the original pixels of each foreground class, `grid_pixels` those on the network's grid (empty where
    an earlier version wrote it). `sha256` is of the original image's array, so that equal images have equal hashes.
    `position` is a slice's index in its `volume`, which has `volume_slices` of them at a distance of `slice_spacing`,
    counting those that are no cases (both None where an earlier version wrote it).
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

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Self:
        return cls(**{**values, "shape": tuple(values["shape"]), "spacing": tuple(values["spacing"])})

    def plain(self) -> dict[str, Any]:
        return asdict(self)


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

    Arrays are views of the memory map, without a copy: do not change them in place.
    Raises InputError naming the file when the manifest or a shard is missing or broken, or a case is unknown.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        manifest = read_json(folder / MANIFEST)
        try:
            self._describe(manifest)
        except (KeyError, TypeError) as error:
            raise InputError(f"{folder / MANIFEST}: not a manifest that `prepare` wrote ({error!r})") from None
        self._shards: dict[str, Any] = {}

    def _describe(self, manifest: dict[str, Any]) -> None:
        self.name: str = manifest["name"]
        self.license: str = manifest["licence"]
        self.citation: str = manifest["citation"]
        self.note: str = manifest["note"]
        self.spatial_dims: int = manifest["spatial_dims"]
        self.channels: int = manifest["channels"]
        self.scheme = LabelScheme.parse(manifest)
        self.size: tuple[int, ...] = tuple(manifest["size"])
        self.intensity: str | None = manifest.get("intensity")  # `data.intensity` when it was written
        self.window: tuple[float, ...] | None = tuple(manifest["window"]) if "window" in manifest else None
        self.paired: tuple[tuple[int, int], ...] = tuple(  # labels of left and right
            (left, right) for left, right in manifest.get("paired", ())
        )
        self.notices: tuple[str, ...] = tuple(manifest.get("notices", ()))  # of the files, a line each
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

    def resampled(self, case_id: str) -> "tuple[Tensor, Tensor]":
        """The network's input and target: image float32 (C, *size), normalized, and labels uint8 (*size)."""
        return self._read("grid", case_id)

    def original(self, case_id: str) -> "tuple[Tensor, Tensor]":
        """The original case: image (C, *shape) in raw intensities, and labels uint8 (*shape)."""
        return self._read("native", case_id)

    def _read(self, kind: str, case_id: str) -> "tuple[Tensor, Tensor]":
        from safetensors import SafetensorError

        if case_id not in self.cases:
            raise InputError(f"{self.folder}: has no case {case_id!r}")
        name = self._shards_of[case_id][kind]
        try:
            shard = self._open(name)
            return shard.get_tensor(f"{case_id}/image"), shard.get_tensor(f"{case_id}/labels")
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
