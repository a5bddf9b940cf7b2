"""The writer of a prepared dataset: safetensors shards with the arrays, and manifest.json."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from llm4seg.config.schema import Data
from llm4seg.data.prepared import MANIFEST, Case, Prepared, SplitLists
from llm4seg.datasets.audit import Audit
from llm4seg.datasets.cases import Dataset, RawCase
from llm4seg.datasets.geometry import Geometry, common_view
from llm4seg.datasets.resample import resize_labels, to_size
from llm4seg.datasets.shards import ShardWriter
from llm4seg.datasets.volume_writer import VolumeWriter
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import replacing, sha256_file, write_json
from llm4seg.utils.threads import in_order

AT_WORK = 4 * 8  # bytes for each value of an image while it is normalized and resized, in double precision


class GridWriter(Protocol):
    """The writer of the shards "grid", with what the network reads."""

    def made(self, case: RawCase, described: Case) -> Any:
        """What `add` takes of a case, which depends on nothing else: cases are worked on in several threads."""

    def add(self, described: Case, made: Any) -> None:
        """Take in a case, of which the manifest will have the description."""

    def end(self, originals: list[str]) -> tuple[list[tuple[Case, str]], dict[str, Any]]:
        """Write what is left; `originals` are the cases' shards with the original arrays, all written.

        Returns each case's description with what was found out on the grid, and its shard; and the manifest's entries
        on the grid.
        """


class ResizedWriter:
    """The writer of images that are all resized to `data.size`, and normalized."""

    def __init__(self, section: Data, folder: Path, audit: Audit) -> None:
        self._section, self._audit, self._shards = section, audit, ShardWriter(folder, "grid")
        self._written: list[tuple[Case, str]] = []

    def made(self, case: RawCase, described: Case) -> tuple[np.ndarray, np.ndarray]:
        size, intensity, window = self._section.size, self._section.intensity, self._section.window
        return to_size(case.image, size, intensity, window), resize_labels(case.labels, size)

    def add(self, described: Case, made: tuple[np.ndarray, np.ndarray]) -> None:
        image, labels = made
        described = replace(described, grid_pixels=self._audit.resized(described.pixels, labels))
        self._written.append((described, self._shards.add(described.id, image=image, labels=labels)))

    def end(self, originals: list[str]) -> tuple[list[tuple[Case, str]], dict[str, Any]]:
        self._shards.flush()
        return self._written, {"size": list(self._section.size)}


def write_prepared(
    dataset: Dataset, section: Data, target: Path, split_file: SplitLists | None = None, workers: int = 1
) -> Prepared:
    """Audit a dataset and write it to the folder `target`, atomically; equal input gives equal bytes.

    `workers`: threads that work on cases while the next is read, as many as memory has room for; never a matter of what
    is written.

    Shards "grid" hold what the network reads, by `data.grid` images that are normalized and resized to `data.size`, or
    volumes at `data.spacing`; shards "native" hold the originals. The manifest holds the official split and the lists
    of `split.file`, where there are any. Raises InputError for failed checks (see `Audit`) and for files that cannot be
    read.
    """
    for name in (name for pair in section.paired for name in pair):
        _own_label(dataset, name)
    with replacing(target) as folder:
        folder.mkdir()
        audit, original = Audit(dataset.name, dataset.scheme, section), ShardWriter(folder, "native")
        volumes = section.grid == "spacing"
        grid: GridWriter = (
            VolumeWriter(section, folder, audit, workers) if volumes else ResizedWriter(section, folder, audit)
        )
        shards: list[str] = []
        notices, geometries = [*dataset.notices], dict[str, Geometry]()
        read = tqdm(dataset.cases, "prepare", dataset.total, unit="case", disable=None)
        for case, described, made in in_order(partial(_worked_on, grid), _audited(read, audit), workers, _needed):
            notices += case.notices
            if case.geometry is not None:
                geometries[case.volume or case.id] = case.geometry
            grid.add(described, made)
            shards.append(original.add(case.id, image=case.image, labels=case.labels))
            if volumes:
                original.flush_large()
            del case, made  # before the next volume is read
        audit.check_cases()
        original.flush()
        written, entries = grid.end(shards)
        cases = [
            {**described.plain(), "shards": {"grid": shard, "native": native}}
            for (described, shard), native in zip(written, shards, strict=True)
        ]
        files: dict[str, Any] = {"notices": [*audit.end(), *notices]}
        files["geometry"] = {name: asdict(one) for name, one in geometries.items()}
        files["view"] = dataset.view or common_view(geometries.values())
        manifest = _manifest(dataset, section, audit.channels, files, entries, cases, folder, workers)
        lists = {"official": dataset.official, "split_file": split_file}  # not in the digest: the data are the same
        manifest |= {key: asdict(one) for key, one in lists.items() if one is not None}
        write_json(folder / MANIFEST, manifest)
    return Prepared(target)


def _audited(cases: Iterable[RawCase], audit: Audit) -> Iterator[tuple[RawCase, dict[str, int]]]:
    """The cases with their number of pixels of each class."""
    for case in cases:
        yield case, audit.case(case)
        del case


def _worked_on(grid: GridWriter, audited: tuple[RawCase, dict[str, int]]) -> tuple[RawCase, Case, Any]:
    case, pixels = audited
    described = _describe(case, pixels)
    return case, described, grid.made(case, described)


def _needed(audited: tuple[RawCase, dict[str, int]]) -> int:
    return AT_WORK * audited[0].image.size


def _own_label(dataset: Dataset, name: str) -> int:
    """The label of a class of `data.paired`. Raises InputError where there is no such class, or it covers several."""
    if name not in dataset.classes:
        raise InputError(f"data.paired: found {name}, allowed: {', '.join(dataset.classes)}")
    covered = dataset.scheme.covered(dataset.classes.index(name))
    if len(covered) > 1:
        raise InputError(f"data.paired: found {name}, a region of several labels, allowed: classes of one label")
    return covered[0]


def _describe(case: RawCase, pixels: dict[str, int]) -> Case:
    return Case(
        id=case.id,
        group=case.group,
        source=case.source,
        volume=case.volume,
        position=case.position,
        shape=case.labels.shape,
        spacing=case.spacing,
        pixels=pixels,
        sha256=_sha256_array(case.image),
        unit=case.unit,
        volume_slices=case.volume_slices,
        slice_spacing=case.slice_spacing,
    )


def _sha256_array(array: np.ndarray) -> str:
    """Hex sha256 of an array's dtype, shape and values."""
    digest = hashlib.sha256(f"{array.dtype} {array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _name_and_sha256(path: Path) -> tuple[str, str]:
    return path.name, sha256_file(path)


def _manifest(
    dataset: Dataset,
    section: Data,
    channels: int,
    files: dict[str, Any],
    grid: dict[str, Any],
    cases: list[dict[str, Any]],
    folder: Path,
    workers: int,
) -> dict[str, Any]:
    content = {
        "spatial_dims": section.spatial_dims,
        "channels": channels,
        **dataset.scheme.plain(),
        **grid,
        "intensity": section.intensity,
        "paired": [[_own_label(dataset, name) for name in pair] for pair in section.paired],
        **({"window": list(section.window)} if section.intensity == "window" else {}),
        "shards": dict(in_order(_name_and_sha256, sorted(folder.glob("*.safetensors")), workers, lambda path: 0)),
        "geometry": files["geometry"],  # of cases, or of the volumes of slices
        "cases": cases,
    }
    about: dict[str, Any] = {
        "name": dataset.name,
        "licence": dataset.license,
        "citation": dataset.citation,
        "note": dataset.note,
    }
    about |= {"notices": files["notices"], "view": files["view"], "cropped": dataset.cropped}  # these rename no run
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return {**about, "sha256": digest, **content}
