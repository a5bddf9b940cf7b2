"""The writer of a prepared dataset: safetensors shards with the arrays, and manifest.json."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from llm4seg.config.schema import Data
from llm4seg.data.prepared import MANIFEST, Case, Prepared, SplitLists
from llm4seg.datasets.audit import Audit
from llm4seg.datasets.cases import Dataset, RawCase
from llm4seg.datasets.resample import normalize, resize_image, resize_labels
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import replacing, sha256_file, write_json

SHARD_BYTES = 256 * 2**20


class ShardWriter:
    """Collects the arrays of one kind ("grid", "native") and writes them in shards of at most `limit` bytes.

    No more than one shard is in memory. A case larger than the limit gets a shard of its own.
    """

    def __init__(self, folder: Path, kind: str, limit: int = SHARD_BYTES) -> None:
        self.names: list[str] = []
        self._folder, self._kind, self._limit = folder, kind, limit
        self._arrays: dict[str, np.ndarray] = {}
        self._bytes = 0

    def add(self, case_id: str, image: np.ndarray, labels: np.ndarray) -> str:
        """Add a case's arrays; returns the name of the shard that will hold them."""
        if self._arrays and self._bytes + image.nbytes + labels.nbytes > self._limit:
            self.flush()
        self._arrays[f"{case_id}/image"] = np.ascontiguousarray(image)
        self._arrays[f"{case_id}/labels"] = np.ascontiguousarray(labels)
        self._bytes += image.nbytes + labels.nbytes
        return self._name()

    def flush(self) -> None:
        """Write the collected arrays as a shard. Raises OSError naming the shard when the disk is full."""
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        try:
            save_file(self._arrays, self._folder / self._name())
        except SafetensorError as error:  # it wraps the operating system's
            raise OSError(f"{self._name()}: {error}") from None
        self.names.append(self._name())
        self._arrays, self._bytes = {}, 0

    def _name(self) -> str:
        return f"{self._kind}-{len(self.names):03d}.safetensors"


def write_prepared(dataset: Dataset, section: Data, target: Path, split_file: SplitLists | None = None) -> Prepared:
    """Audit a dataset and write it to the folder `target`, atomically; equal input gives equal bytes.

    Shards "grid" hold the normalized arrays, resized to `section.size`, shards "native" the originals. The manifest
    holds the official split and the lists of `split.file`, where there are any. Raises InputError for failed checks
    (see `Audit`) and for files that cannot be read.
    """
    for name in (name for pair in section.paired for name in pair):
        _own_label(dataset, name)
    with replacing(target) as folder:
        folder.mkdir()
        resampled, original = ShardWriter(folder, "grid"), ShardWriter(folder, "native")
        audit = Audit(dataset.name, dataset.scheme, section.size)
        cases: list[dict[str, Any]] = []
        notices, geometries = [*dataset.notices], {}
        for case in tqdm(dataset.cases, "prepare", dataset.total, unit="case", disable=None):
            notices += case.notices
            if case.geometry is not None:
                geometries[case.volume or case.id] = asdict(case.geometry)
            pixels, labels = audit.case(case), resize_labels(case.labels, section.size)
            described = _describe(case, pixels, audit.resized(pixels, labels))
            image = resize_image(normalize(case.image, section), section.size)
            resampled_shard = resampled.add(case.id, image, labels)
            original_shard = original.add(case.id, case.image, case.labels)
            cases.append({**described.plain(), "shards": {"grid": resampled_shard, "native": original_shard}})
        files = {"notices": [*audit.end(), *notices], "geometry": geometries}
        resampled.flush()
        original.flush()
        manifest = _manifest(dataset, section, audit.channels, files, cases, folder)
        lists = {"official": dataset.official, "split_file": split_file}  # not in the digest: the data are the same
        manifest |= {key: asdict(one) for key, one in lists.items() if one is not None}
        write_json(folder / MANIFEST, manifest)
    return Prepared(target)


def _own_label(dataset: Dataset, name: str) -> int:
    """The label of a class of `data.paired`. Raises InputError where there is no such class, or it covers several."""
    if name not in dataset.classes:
        raise InputError(f"data.paired: found {name}, allowed: {', '.join(dataset.classes)}")
    covered = dataset.scheme.covered(dataset.classes.index(name))
    if len(covered) > 1:
        raise InputError(f"data.paired: found {name}, a region of several labels, allowed: classes of one label")
    return covered[0]


def _describe(case: RawCase, pixels: dict[str, int], grid_pixels: dict[str, int]) -> Case:
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
        grid_pixels=grid_pixels,
        volume_slices=case.volume_slices,
        slice_spacing=case.slice_spacing,
    )


def _sha256_array(array: np.ndarray) -> str:
    """Hex sha256 of an array's dtype, shape and values."""
    digest = hashlib.sha256(f"{array.dtype} {array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _manifest(
    dataset: Dataset, section: Data, channels: int, files: dict[str, Any], cases: list[dict[str, Any]], folder: Path
) -> dict[str, Any]:
    content = {
        "spatial_dims": section.spatial_dims,
        "channels": channels,
        **dataset.scheme.plain(),
        "size": list(section.size),
        "intensity": section.intensity,
        "paired": [[_own_label(dataset, name) for name in pair] for pair in section.paired],
        **({"window": list(section.window)} if section.intensity == "window" else {}),
        "shards": {path.name: sha256_file(path) for path in sorted(folder.glob("*.safetensors"))},
        "geometry": files["geometry"],  # of cases, or of the volumes of slices
        "cases": cases,
    }
    about = {"name": dataset.name, "licence": dataset.license, "citation": dataset.citation, "note": dataset.note}
    about["notices"] = files["notices"]  # their wording renames no run
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return {**about, "sha256": digest, **content}
