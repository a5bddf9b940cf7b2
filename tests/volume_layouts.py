"""Miniatures of published sets of volumes in their owners' layouts, with the traps of each, and what is in them.

Every writer returns the cases by id: the image (C, x, y, z) and the labels (x, y, z), both in RAS. The files are of
several orientations, and of a label that differs from its image's.
"""

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

Truth = dict[str, tuple[np.ndarray, np.ndarray]]
SHAPE = (7, 6, 5)
AFFINE = np.array([[0.8, 0, 0, -20], [0, 0.9, 0, 11], [0, 0, 3.0, 5], [0, 0, 0, 1]])
CODES = ("RAS", "LPS", "SRA", "LAS", "PIR")


def save(path: Path, values: np.ndarray, codes: str, affine: np.ndarray = AFFINE) -> None:
    """Write a volume (x, y, z[, C]) in RAS as a file of another orientation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    change = ornt_transform(io_orientation(affine), axcodes2ornt(codes))
    turned = affine @ inv_ornt_aff(change, values.shape[:3])
    nibabel.save(nibabel.Nifti1Image(apply_orientation(values, change), turned), path)


def volume(seed: int, classes: int, channels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """An image (C, x, y, z) int16 and labels (x, y, z) uint8 from 0 to `classes`, all of which occur."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes + 1, SHAPE, dtype=np.uint8)
    labels.flat[: classes + 1] = range(classes + 1)
    return random.integers(-1000, 1000, (channels, *SHAPE), dtype=np.int16), labels


def as_seen(values: np.ndarray) -> np.ndarray:
    """Of (..., x, y, z) in RAS the array that a person sees: rows to the back, columns to the right."""
    return np.flip(np.swapaxes(values, -3, -2), -3)


def litter(*folders: Path) -> None:
    """What macOS leaves beside data, and a text."""
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("._la_003.nii.gz", "._dataset.json", ".DS_Store", "readme.txt"):
            (folder / name).write_bytes(b"no volume")


def write_decathlon(root: Path, channels: int = 2) -> Truth:
    """Names with gaps, paths that begin with ./, channels along the fourth axis, labels of floating point."""
    root, truth = root / "Task05_Prostate", {}
    for number, codes in zip((0, 2, 16, 20), CODES, strict=False):
        name = f"prostate_{number:02d}"
        truth[name] = image, labels = volume(number, 2, channels)
        save(root / "imagesTr" / f"{name}.nii.gz", np.moveaxis(image, 0, -1), codes)
        save(root / "labelsTr" / f"{name}.nii.gz", labels.astype(np.float32), CODES[number % 5])
    save(root / "imagesTs" / "prostate_03.nii.gz", volume(3, 2)[0][0], "RAS")
    entries = [{part: f"./{part}sTr/{name}.nii.gz" for part in ("image", "label")} for name in truth]
    write_json(
        root / "dataset.json",
        name="PROSTATE",
        licence="CC-BY-SA 4.0",
        relase="1.0",
        tensorImageSize="4D",
        modality={"0": "T2", "1": "ADC"},
        labels={"0": "background", "2": "transition zone", "1": "PZ"},
        numTraining=32,
        training=entries,
        test=["./imagesTs/prostate_03.nii.gz"],
    )
    litter(root, root / "imagesTr", root / "labelsTr", root / "imagesTs")
    return truth


def write_btcv(root: Path, form: str = "RawData") -> Truth:
    """The published numbers, in one of the forms: RawData, Training or imagesTr."""
    images, labels, test = {
        "RawData": ("Abdomen/RawData/Training/img", "Abdomen/RawData/Training/label", "Abdomen/RawData/Testing/img"),
        "Training": ("img", "label", "none"),
        "imagesTr": ("imagesTr", "labelsTr", "imagesTs"),
    }[form]
    truth: Truth = {}
    for number in (*range(1, 11), *range(21, 41)):
        truth[f"{number:04d}"] = image, organs = volume(number, 13)
        save(root / images / f"img{number:04d}.nii.gz", image[0], CODES[number % 5])
        save(root / labels / f"label{number:04d}.nii.gz", organs, CODES[number % 3])
    save(root / test / "img0061.nii.gz", volume(61, 13)[0][0], "LAS")
    litter(root / images, root / labels)
    return truth


def write_nnunet(root: Path, largest: int = 2, **changes: Any) -> Truth:
    """Two channels a case in a file each, ids that end like a channel or are decomposed, and splits_final.json."""
    root, truth = root / "nnUNet_raw" / "Dataset123_Heart", {}
    for number, name in enumerate(("BRATS_001_0000", "a_001", "c 2", "dÄ.3")):
        on_disk = unicodedata.normalize("NFD", name)  # as macOS writes it
        truth[name] = image, labels = volume(number, largest, 2)
        for channel, values in enumerate(image):
            save(root / "imagesTr" / f"{on_disk}_{channel:04d}.nii.gz", values, CODES[number])
        save(root / "labelsTr" / f"{on_disk}.nii.gz", labels, CODES[number])
    save(root / "imagesTs" / "z_0000.nii.gz", volume(9, 2)[0][0], "RAS")
    about = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "left ventricle": 2, "wall": 1},
        "numTraining": 4,
        "file_ending": ".nii.gz",
        "licence": "CC0",
    }
    write_json(root / "dataset.json", **{**about, **changes})
    names = list(truth)
    folds = [{"train": names[:fold] + names[fold + 1 :], "val": [names[fold]]} for fold in range(4)]
    (root / "splits_final.json").write_text(json.dumps(folds))
    litter(root, root / "imagesTr", root / "labelsTr")
    return truth


def write_acdc(root: Path) -> Truth:
    """Frames of other numbers in each patient; films, tables and a citation beside them."""
    root, truth = root / "ACDC" / "database", {}
    for number, part in ((1, "training"), (2, "training"), (101, "testing")):
        folder = root / part / f"patient{number:03d}"
        for frame in (1, 9 + number % 7):
            name = f"patient{number:03d}_frame{frame:02d}"
            truth[name] = image, labels = volume(number + frame, 3)
            save(folder / f"{name}.nii.gz", image[0], CODES[number % 5])
            save(folder / f"{name}_gt.nii.gz", labels, CODES[number % 5])
        save(folder / f"patient{number:03d}_4d.nii.gz", np.zeros((*SHAPE, 12), np.int16), "LPS")
        (folder / "Info.cfg").write_text("ED: 1\nES: 12\nGroup: DCM\n")
        litter(folder)
    (root / "training" / "MANDATORY_CITATION.md").write_text("Bernard et al.")
    return truth


def write_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(values))


WRITERS: dict[str, Callable[[Path], Truth]] = {  # by data.dataset
    "acdc": write_acdc,
    "btcv": write_btcv,
    "decathlon": write_decathlon,
    "nnunet": write_nnunet,
}
