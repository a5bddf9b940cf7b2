"""The writer of a prepared dataset: safetensors shards with the arrays, and manifest.json."""

import hashlib
import json
import logging
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from llm4seg.config.schema import Data
from llm4seg.data.label_scheme import LabelScheme
from llm4seg.data.prepared import MANIFEST, Case, Prepared, SplitLists
from llm4seg.datasets.audit import Audit
from llm4seg.datasets.cases import Dataset, RawCase
from llm4seg.datasets.describe import Described, describe
from llm4seg.datasets.geometry import Geometry, common_view
from llm4seg.datasets.resample import resize_labels, to_size
from llm4seg.datasets.shards import ShardWriter
from llm4seg.datasets.volume_writer import VolumeWriter
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import replacing, sha256_file, write_json
from llm4seg.utils.logs import bars_off
from llm4seg.utils.threads import in_order

log = logging.getLogger(__name__)

AT_WORK = 4 * 8  # bytes for each value of an image while it is normalized and resized, in double precision


class GridWriter(Protocol):
    """The writer of all shards: "grid", with what the network reads, and "native", with the original arrays."""

    def write(self, dataset: Dataset) -> Generator[tuple[Described, str]]:
        """Audit and write all cases; yields the description of each with the shard of its original arrays."""

    def end(self, originals: list[str]) -> tuple[list[tuple[Case, str]], dict[str, Any]]:
        """Write what is left; `originals` are the cases' shards with the original arrays.

        Returns each case's description with what was found out on the grid, and its shard; and the manifest's entries
        on the grid.
        """


class ResizedWriter:
    """The writer of images that are all resized to `data.size`, and normalized, in `workers` threads."""

    def __init__(self, section: Data, scheme: LabelScheme, folder: Path, audit: Audit, workers: int = 1) -> None:
        self._section, self._scheme, self._audit, self._workers = section, scheme, audit, workers
        self._original, self._grid = ShardWriter(folder, "native"), ShardWriter(folder, "grid")
        self._written: list[tuple[Case, str]] = []

    def write(self, dataset: Dataset) -> Generator[tuple[Described, str]]:
        cases = tqdm(dataset.cases, "prepare", dataset.total, unit="case", disable=bars_off())
        for raw, described, (image, labels) in in_order(self._resized, cases, self._workers, _needed):
            self._audit.case(described)
            on_grid = self._scheme.counts(labels)
            self._audit.resized(described.case.pixels, on_grid)
            shard = self._grid.add(raw.id, image=image, labels=labels)
            self._written.append((replace(described.case, grid_pixels=on_grid), shard))
            yield described, self._original.add(raw.id, image=raw.image, labels=raw.labels)
            del raw, image, labels  # before the next case is read

    def _resized(self, raw: RawCase) -> tuple[RawCase, Described, tuple[np.ndarray, np.ndarray]]:
        described = describe(raw, self._scheme, self._section.spatial_dims)
        size, intensity, window = self._section.size, self._section.intensity, self._section.window
        return raw, described, (to_size(raw.image, size, intensity, window), resize_labels(raw.labels, size))

    def end(self, originals: list[str]) -> tuple[list[tuple[Case, str]], dict[str, Any]]:
        self._original.flush()
        self._grid.flush()
        return self._written, {"size": list(self._section.size)}


def write_prepared(
    dataset: Dataset, section: Data, target: Path, split_file: SplitLists | None = None, workers: int = 1
) -> Prepared:
    """Audit a dataset and write it to the folder `target`, atomically; equal input gives equal bytes.

    `workers`: threads or, of large volumes, processes that work on cases, as many as memory has room for; never a
    matter of what is written.

    Shards "grid" hold what the network reads, by `data.grid` images that are normalized and resized to `data.size`, or
    volumes at `data.spacing`; shards "native" hold the originals. The manifest holds the official split and the lists
    of `split.file`, where there are any. Raises InputError for failed checks (see `Audit`) and for files that cannot be
    read.
    """
    start = time.monotonic()
    for name in (name for pair in section.paired for name in pair):
        _own_label(dataset, name)
    with replacing(target) as folder:
        folder.mkdir()
        audit = Audit(dataset.name, dataset.classes, section)
        kind = VolumeWriter if section.grid == "spacing" else ResizedWriter
        writer: GridWriter = kind(section, dataset.scheme, folder, audit, workers)
        shards: list[str] = []
        notices, geometries = [*dataset.notices], dict[str, Geometry]()
        with closing(writer.write(dataset)) as written:
            for one, shard in written:
                notices += one.notices
                if one.geometry is not None:
                    geometries[one.case.volume or one.case.id] = one.geometry
                shards.append(shard)
        audit.check_cases()
        on_grid, entries = writer.end(shards)
        cases = [
            {**described.plain(), "shards": {"grid": shard, "native": native}}
            for (described, shard), native in zip(on_grid, shards, strict=True)
        ]
        files: dict[str, Any] = {"notices": [*audit.end(), *notices]}
        files["geometry"] = {name: asdict(one) for name, one in geometries.items()}
        files["view"] = dataset.view or common_view(geometries.values())
        manifest = _manifest(dataset, section, audit.channels, files, entries, cases, folder, workers)
        lists = {"official": dataset.official, "split_file": split_file}  # not in the digest: the data are the same
        manifest |= {key: asdict(one) for key, one in lists.items() if one is not None}
        write_json(folder / MANIFEST, manifest)
    nbytes = sum(file.stat().st_size for file in target.iterdir())
    log.debug("%s: %d cases, %.1f MB, in %.1f s", target, len(cases), nbytes / 1e6, time.monotonic() - start)
    return Prepared(target)


def _needed(raw: RawCase) -> int:
    return AT_WORK * raw.image.size


def _own_label(dataset: Dataset, name: str) -> int:
    """The label of a class of `data.paired`. Raises InputError where there is no such class, or it covers several."""
    if name not in dataset.classes:
        raise InputError(f"data.paired: found {name}, allowed: {', '.join(dataset.classes)}")
    covered = dataset.scheme.covered(dataset.classes.index(name))
    if len(covered) > 1:
        raise InputError(f"data.paired: found {name}, a region of several labels, allowed: classes of one label")
    return covered[0]


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
