"""Volumes of several spacings and orientations with bright lesions, as files; and a workspace that trains on them."""

from pathlib import Path
from typing import Any

import numpy as np

from llm4seg.config import Config
from tests.tiny import tiny_config, write_llama
from tests.volume_layouts import CODES, as_seen, save

# mm to the right, to the front, to the head
SPACINGS = ((1.0, 1.0, 2.0), (0.8, 1.1, 2.4), (1.2, 0.9, 1.5))
FIELDS = ((26.0, 22.0, 30.0), (30.0, 22.0, 42.0))  # mm; of every other volume
MARGIN = 2  # voxels of nothing around
BODY, LEVELS = 100, (40, 180)  # intensities of the body, and of lesions of each class

VOLUMES: dict[str, Any] = {
    "data.dataset": "folder",
    "data.spatial_dims": 3,
    "data.grid": "spacing",
    "data.spacing": [1.0, 1.0, 2.0],
    "data.classes": {"dark": [1], "bright": [2]},
    "data.intensity": "ct",
    "data.folder.group": None,
    "training.patch.size": [16, 16, 8],
    "training.patch.per_case": 2,
    "training.epochs": 2,
    "training.augment.flip": [1],
    "split.val": 0.25,
    "split.test": 0.25,
    "search.space": {"model.llm.layer": [0, 1]},
}


def lesion_volume(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An image (x, y, z) int16, its labels uint8 and its affine; both classes occur."""
    random, spacing = np.random.default_rng(number), np.array(SPACINGS[number % len(SPACINGS)])
    field = np.array(FIELDS[number % len(FIELDS)])
    shape = np.round(field / spacing).astype(int)
    place = [(axis + 0.5) * step for axis, step in zip(np.indices(shape), spacing, strict=True)]
    labels = np.zeros(shape, dtype=np.uint8)
    for label, side in ((1, 0.3), (2, 0.7)):
        center = np.array([side, random.uniform(0.35, 0.65), random.uniform(0.35, 0.65)]) * field
        radius = random.uniform(4, 6)
        labels[sum((axis - middle) ** 2 for axis, middle in zip(place, center, strict=True)) < radius**2] = label
    levels = np.array([BODY, *LEVELS])
    image = levels[labels] + random.normal(0, 5, shape)
    around = [(MARGIN, MARGIN)] * 3
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = random.uniform(-50, 50, 3)
    return np.pad(image.round().astype(np.int16), around), np.pad(labels, around), affine


def original_arrays(number: int) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """Image, labels and spacing of a case as arrays: rows to the back, columns to the right, slices to the head."""
    image, labels, _ = lesion_volume(number)
    x, y, z = SPACINGS[number % len(SPACINGS)]
    return as_seen(image), as_seen(labels), (y, x, z)


def write_lesions(root: Path, cases: int = 8) -> None:
    """A folder of images and masks, in file orientations of their own."""
    for number in range(cases):
        image, labels, affine = lesion_volume(number)
        codes = CODES[number % len(CODES)]
        save(root / "images" / f"case-{number}.nii.gz", image, codes, affine)
        save(root / "masks" / f"case-{number}.nii.gz", labels, codes, affine)


def lesion_config(root: Path, changes: dict[str, Any] | None = None, cases: int = 8) -> Config:
    """The tiny config for volumes written below `root`."""
    if not (root / "raw").exists():
        write_lesions(root / "raw", cases)
    return tiny_config(root).override(VOLUMES | {"data.root": str(root / "raw")} | (changes or {}))


def prepare_lesions(root: Path, changes: dict[str, Any] | None = None) -> Config:
    """Everything that `train` reads, made by the stages before it."""
    from pipelines.fetch_llm import fetch_llm
    from pipelines.prepare import prepare
    from pipelines.search import search
    from pipelines.split import split

    config = lesion_config(root, changes)
    write_llama(root / "llama")
    for stage in (fetch_llm, prepare, split, search):
        stage(config)
    return config
