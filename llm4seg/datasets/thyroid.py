"""Datasets `tnscui` and `tn3k`: thyroid nodules in ultrasound."""

import csv
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

from llm4seg.config.schema import Data
from llm4seg.config.schema.data import Classes
from llm4seg.data.prepared import SplitLists
from llm4seg.datasets.cases import Dataset
from llm4seg.datasets.classes import label_of, scheme_of
from llm4seg.datasets.layouts import by_id, count_notices, find_root, pairs
from llm4seg.datasets.picture_cases import picture_case
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import read_json

KINDS = ("benign", "malignant")  # 0 and 1 in the tables
NODULE: Classes = {"nodule": KINDS}  # the classes unless data.classes says
TNSCUI_SOURCE = "https://tn-scui2020.grand-challenge.org/"
TN3K_SOURCE = "https://github.com/haifangong/TRFE-Net-for-thyroid-nodule-segmentation"
TN3K_PARTS = {"trainval": 2879, "test": 614}


def tnscui(section: Data, cache: Path) -> Dataset:
    """The training images of TN-SCUI 2020; those of the test were published without masks.

    Checked: the published number of images; that each has a mask of its size, of the values 0 and 255, and is in
    train.csv where `data.classes` distinguishes its kinds.
    """
    root = find_root(section, cache, TNSCUI_SOURCE)
    images, masks = (by_id(root / folder, r"0*(\d+)\.png") for folder in ("image", "mask"))
    files, classes = pairs(images, masks, str(root)), section.classes or NODULE
    label = _labels(section, classes, {root / "train.csv": {int(name): name for name in files}})
    return Dataset(
        name="tnscui",
        license="by agreement with the organizers: do not redistribute",
        citation="TN-SCUI 2020: Thyroid Nodule Segmentation and Classification in Ultrasound Images, MICCAI 2020",
        note="an image a patient, as the organizers say; no patient is named",
        cases=(picture_case(name, files[name], label[name]) for name in files if name in label),
        total=len(label),
        notices=count_notices({"images": len(files)}, {"images": 3644}),
        scheme=scheme_of(classes, section.regions_class_order),
    )


def tn3k(section: Data, cache: Path) -> Dataset:
    """Both parts, whose file names are the same numbers: `trainval-0000` and `test-0000`; masks are JPEG.

    Checked: the published numbers of images; that each has a mask of its size, and is in its table where `data.classes`
    distinguishes its kinds. The owners' split: trainval by their lists, and folds of it, with test.
    """
    root, classes = find_root(section, cache, TN3K_SOURCE), section.classes or NODULE
    files: dict[str, list[Path]] = {}
    names: dict[str, dict[int, str]] = {}
    for part in TN3K_PARTS:
        images, masks = (by_id(root / f"{part}-{what}", r"(\d+)\.jpe?g") for what in ("image", "mask"))
        files |= {f"{part}-{number}": paths for number, paths in pairs(images, masks, str(root)).items()}
        names[part] = {int(number): f"{part}-{number}" for number in images}
    label = _labels(section, classes, {root / f"label4{part}.csv": named for part, named in names.items()})
    counts = {f"images of {part}": len(named) for part, named in names.items()}
    return Dataset(
        name="tn3k",
        license="not stated for the images (the code's is MIT)",
        citation="Gong et al., Thyroid region prior guided attention for ultrasound segmentation of thyroid nodules, "
        "Computers in Biology and Medicine 155 (2023) 106389",
        note="3493 images of 2421 patients, who are not named: images of one may be in two parts of the split",
        cases=(picture_case(name, files[name], label[name]) for name in files if name in label),
        total=len(label),
        notices=count_notices(counts, {f"images of {part}": count for part, count in TN3K_PARTS.items()}),
        official=_official(root, names, label),
        scheme=scheme_of(classes, section.regions_class_order),
    )


def _labels(section: Data, classes: Classes, tables: Mapping[Path, Mapping[int, str]]) -> dict[str, int]:
    """The label of each case whose kind `data.classes` lists, by tables (path: cases by their numbers) of the kinds."""
    labels = label_of(classes, KINDS, regions=section.regions_class_order is not None)
    if set(labels) == set(KINDS) and len(set(labels.values())) == 1:  # the kinds do not matter
        return {name: labels[KINDS[0]] for names in tables.values() for name in names.values()}
    found: dict[str, int] = {}
    for table, names in tables.items():
        kinds = _kinds(table)
        if missing := [name for number, name in names.items() if number not in kinds]:
            raise InputError(f"{table}: has no line for {missing[0]}, which data.classes needs: {', '.join(classes)}")
        found |= {name: labels[kinds[number]] for number, name in names.items() if kinds[number] in labels}
    return found


def _kinds(table: Path) -> dict[int, str]:
    """The kind of each image by its number, from lines such as `12.PNG,1`; a heading may stand above them."""
    if not table.is_file():
        raise InputError(f"{table}: no such file, which data.classes needs; null is one class, nodule")
    kinds: dict[int, str] = {}
    with table.open(encoding="utf-8-sig", newline="") as file:
        for line in csv.reader(file):
            number, kind = (line[0].split(".")[0], line[1].strip()) if len(line) > 1 else ("", "")
            if number.strip().isdecimal() and kind not in ("0", "1"):
                raise InputError(f"{table}: found {','.join(line)}, allowed: an image and 0 (benign) or 1 (malignant)")
            if number.strip().isdecimal():
                kinds[int(number)] = KINDS[int(kind)]
    return kinds


def _official(root: Path, names: Mapping[str, Mapping[int, str]], used: Container[str]) -> SplitLists:
    """TN3K's split of the cases in use: train and val by tn3k-trainval.json, if it is there; its folds; and test."""
    trainval = [names["trainval"][number] for number in sorted(names["trainval"])]
    whole = root / "tn3k-trainval.json"
    parts = _places(whole, trainval) if whole.is_file() else {"train": trainval}
    folds = [_places(path, trainval) for path in sorted(root.glob("tn3k-trainval-fold*.json"))]
    parts["test"] = [*names["test"].values()]
    of_use = [
        {part: tuple(name for name in ids if name in used) for part, ids in one.items()} for one in (parts, *folds)
    ]
    return SplitLists("TN3K's lists", of_use[0], tuple(of_use[1:]))


def _places(path: Path, in_order: Sequence[str]) -> dict[str, list[str]]:
    """The owner's lists of train and val, of places in the list of trainval's files, in the order of their numbers."""
    lists = read_json(path)
    found: dict[str, list[str]] = {}
    for part in ("train", "val"):
        places = lists.get(part) if isinstance(lists, dict) else None
        if not isinstance(places, list) or not all(place in range(len(in_order)) for place in places):
            raise InputError(f"{path}: allowed in {part!r}: a list of numbers from 0 to {len(in_order) - 1}, of images")
        found[part] = [in_order[place] for place in places]
    return found
