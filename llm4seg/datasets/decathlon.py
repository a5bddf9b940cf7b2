"""Dataset `decathlon`: any task of the Medical Segmentation Decathlon (MSD), or data in its form."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llm4seg.config.schema import Data
from llm4seg.data.prepared import SplitLists
from llm4seg.datasets.case_files import CaseFiles, name_of, read_cases
from llm4seg.datasets.cases import Dataset
from llm4seg.datasets.classes import scheme_of
from llm4seg.datasets.dataset_json import NAME, classes_of, listed, read_dataset_json, text_of
from llm4seg.datasets.image_io import is_image
from llm4seg.datasets.layouts import count_notices, find_root, unlabeled_notices, visible
from llm4seg.utils.errors import InputError

SOURCE = "http://medicaldecathlon.com"
LISTS = {"train": "training", "val": "validation"}  # of dataset.json; MSD has no val, files made from it may


def decathlon(section: Data, cache: Path) -> Dataset:
    """The images that dataset.json lists with their labels; channels lie along a volume's fourth axis.

    Checked: that each of these files is there, with as many channels as `modality` has; their number against
    dataset.json's; that each label has its image's size, and of the values of dataset.json.
    """
    root = Path(os.path.normpath(find_root(section, cache, SOURCE)))
    path = root / NAME
    about = read_dataset_json(path)
    classes, order = classes_of(about, path)
    modality = about.get("modality")
    channels = len(modality) if isinstance(modality, dict) else None
    pairs = {part: listed(about, key, path) for part, key in LISTS.items()}
    files = [pair for part in pairs.values() for pair in part]
    if not files and "channel_names" in about:
        raise InputError(f"{root}: looks like data.dataset: nnunet, as {NAME} has channel_names and lists no training")
    if not files:
        raise InputError(f"{path}: found no cases in training, allowed: one or more, each an image and its label")
    _check_files(files, path)
    official = {part: tuple(name_of(image) for image, _ in own) for part, own in pairs.items()}
    return Dataset(
        name=text_of(about, "name", otherwise=root.name),
        license=text_of(about, "licence", "license", otherwise="CC BY-SA 4.0"),
        citation="Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 13 (2022) 4128",
        note="a case counts as a patient: none is named",
        cases=read_cases(
            [CaseFiles(name_of(image), name_of(image), (image,), (label,), channels) for image, label in files],
            root,
            classes,
            section.spatial_dims,
            regions=order is not None,
        ),
        total=len(files) if section.spatial_dims == 3 else None,
        files=tuple(image for image, _ in files),
        notices=(*_notices(root, files, about.get("numTraining")), *unlabeled_notices(root, "imagesTs")),
        official=SplitLists(NAME, official) if official["val"] else None,
        scheme=scheme_of(classes, order),
    )


def _notices(root: Path, files: list[tuple[Path, Path]], published: Any) -> Iterator[str]:
    if isinstance(published, int):
        yield from count_notices({"cases": len(files)}, {"cases": published})
    others = {path.name for path in visible(root / "imagesTr") if is_image(path)} - {image.name for image, _ in files}
    if others:
        yield f"imagesTr: {len(others)} files are left out, as {NAME} does not list them, such as {min(others)}"


def _check_files(files: list[tuple[Path, Path]], path: Path) -> None:
    missing = [one for pair in files for one in pair if not one.exists()]
    if not missing:
        return
    first = missing[0]
    if list(first.parent.glob(f"{name_of(first)}_0000.*")):
        raise InputError(f"{first.parent.parent}: looks like data.dataset: nnunet, whose channels end in _0000")
    raise InputError(f"{first}: no such file, which {path} lists ({len(missing)} such files)")
