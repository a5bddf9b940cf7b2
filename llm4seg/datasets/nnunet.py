"""Dataset `nnunet`: data in the raw format of nnU-Net v2 (v1's, which differs in dataset.json, is read, too)."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llm4seg.config.schema import Data
from llm4seg.datasets.case_files import CaseFiles, name_of, read_cases
from llm4seg.datasets.cases import Dataset
from llm4seg.datasets.classes import scheme_of
from llm4seg.datasets.dataset_json import NAME, classes_of, read_dataset_json, text_of
from llm4seg.datasets.layouts import by_id, count_notices, find_root, pairs, unlabeled_notices
from llm4seg.datasets.side_files import is_tiff, tiff_spacing
from llm4seg.datasets.split_file import read_lists
from llm4seg.utils.errors import InputError

SOURCE = "your own; https://github.com/MIC-DKFZ/nnUNet describes its form"
SPLITS = "splits_final.json"
PREPROCESSED = "nnUNet_preprocessed"  # the environment variable of the folder in which nnU-Net writes SPLITS
PICTURES = (".png", ".bmp", ".tif")  # one file may hold all channels, red, green and blue


def nnunet(section: Data, cache: Path) -> Dataset:
    """The training cases, a file a channel (`_0000`, ...); the folds of splits_final.json are the official split.

    The spacing of TIFF is in side files. Checked: the number of cases and of each case's channels against
    dataset.json's, that all of a case have one size and place, and that labels are dataset.json's.
    """
    root = Path(os.path.normpath(find_root(section, cache, SOURCE)))
    path = root / NAME
    about = read_dataset_json(path)
    channels = _channels(about, path)
    classes, order = classes_of(about, path)
    files = [
        CaseFiles(name, name, images, (label,), channels, tiff_spacing(images, label))
        for name, images, label in _files(about, channels, path)
    ]
    published = about.get("numTraining")
    return Dataset(
        name=text_of(about, "name", otherwise=root.name),
        license=text_of(about, "licence", "license", otherwise="the owner's: none is recorded"),
        citation=text_of(about, "reference", otherwise="none"),
        note="a case counts as a patient, as in nnU-Net's own split",
        cases=read_cases(files, root, classes, section.spatial_dims, regions=order is not None),
        total=len(files) if section.spatial_dims == 3 else None,
        files=tuple(one.images[0] for one in files),
        notices=(
            *(count_notices({"cases": len(files)}, {"cases": published}) if isinstance(published, int) else ()),
            *_elsewhere(root, files),
            *_without_spacing(files),
            *unlabeled_notices(root, "imagesTs"),
        ),
        official=read_lists(root / SPLITS, SPLITS) if (root / SPLITS).is_file() else None,
        scheme=scheme_of(classes, order),
    )


def _channels(about: dict[str, Any], path: Path) -> int:
    names = about.get("channel_names", about.get("modality"))
    if not isinstance(names, dict) or not names:
        raise InputError(f'{path}: found channel_names {names!r}, allowed: names as in {{"0": "CT"}}')
    return len(names)


def _files(about: dict[str, Any], channels: int, path: Path) -> Iterator[tuple[str, tuple[Path, ...], Path]]:
    """The id, images and label of each case: those in dataset.json where it has them, else those in the folders."""
    if "dataset" in about:
        yield from _listed(about["dataset"], channels, path)
        return
    ending = about.get("file_ending", ".nii.gz")  # v1 has no other
    if not isinstance(ending, str):
        raise InputError(f'{path}: found file_ending {ending!r}, allowed: one such as ".nii.gz"')
    images = by_id(path.parent / "imagesTr", rf"(.+)_\d{{4}}{re.escape(ending)}")
    labels = by_id(path.parent / "labelsTr", rf"(.+){re.escape(ending)}")
    if not images and "modality" in about:
        raise InputError(f"{path.parent}: looks like data.dataset: decathlon, as no image ends in _0000{ending}")
    if not images:
        raise InputError(f"{path.parent / 'imagesTr'}: found no image, allowed: names such as case_0000{ending}")
    for name, own in images.items():
        expected = [f"{name}_{channel:04d}{ending}" for channel in range(channels)]
        found = [one.name for one in own]
        if found != expected and not (found == expected[:1] and ending.lower() in PICTURES):
            raise InputError(
                f"{own[0].parent}: found {', '.join(found)}, allowed: {', '.join(expected)}, as {path} has "
                f"{channels} channels"
            )
    firsts = {name: own[:1] for name, own in images.items()}
    for name, (_, label) in pairs(firsts, labels, str(path.parent)).items():
        yield name_of(label), tuple(images[name]), label


def _listed(cases: Any, channels: int, path: Path) -> Iterator[tuple[str, tuple[Path, ...], Path]]:
    """The cases under `dataset`; paths are relative to dataset.json's folder, or begin with environment variables."""
    for name, entry in (cases if isinstance(cases, dict) else {"": cases}).items():
        images = entry.get("images") if isinstance(entry, dict) else None
        if not isinstance(images, list) or not all(isinstance(one, str) for one in (*images, entry.get("label"))):
            raise InputError(f"{path}: found {entry!r} in dataset, allowed: images, a list of paths, and label, a path")
        *own, label = [
            Path(os.path.normpath(path.parent / os.path.expandvars(one))) for one in (*images, entry["label"])
        ]
        if len(own) != channels and not (len(own) == 1 and own[0].name.lower().endswith(PICTURES)):
            raise InputError(f"{path}: found {len(own)} images of {name}, allowed: {channels}, one a channel")
        if missing := [one for one in (*own, label) if not one.exists()]:
            raise InputError(f"{missing[0]}: no such file, which {path} lists for {name}")
        yield name, tuple(own), label


def _elsewhere(root: Path, files: list[CaseFiles]) -> Iterator[str]:
    """Lines about files that data.root does not hold: images and labels, and the folds, which nnU-Net writes elsewhere.

    Folds count only where DVC sees them; paths of this machine stand in no manifest.
    """
    elsewhere = [one for case in files for one in (*case.images, *case.masks) if not one.is_relative_to(root)]
    if elsewhere:
        yield f"{NAME} lists {len(elsewhere)} files outside data.root, of whose changes DVC knows nothing"
    preprocessed = os.environ.get(PREPROCESSED)
    if preprocessed and not (root / SPLITS).is_file() and Path(preprocessed, root.name, SPLITS).is_file():
        yield f"the folds in ${PREPROCESSED}/{root.name}/{SPLITS} are not read: copy it beside {NAME} to split by them"


def _without_spacing(files: list[CaseFiles]) -> Iterator[str]:
    """A line about TIFF images whose pixels have no known size."""
    unknown = [case for case in files if case.spacing is None and is_tiff(case.images[0])]
    if unknown:
        yield (
            f"{len(unknown)} TIFF images have no side file with their spacing, such as {unknown[0].id}.json: their "
            "distances are in px"
        )
