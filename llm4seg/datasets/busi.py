"""Dataset `busi`: breast ultrasound images with benign and malignant lesions, or none (Al-Dhabyani et al., 2020)."""

import re
from collections.abc import Container, Iterator
from pathlib import Path

from llm4seg.config.schema import Data
from llm4seg.config.schema.data import Classes
from llm4seg.data.prepared import SplitLists
from llm4seg.datasets.cases import Dataset, RawCase
from llm4seg.datasets.classes import label_of, scheme_of
from llm4seg.datasets.layouts import by_id, count_notices, find_root, pairs, visible
from llm4seg.datasets.look_alikes import groups_of_look_alikes
from llm4seg.datasets.picture_cases import picture_case
from llm4seg.datasets.split_file import read_ids

SOURCE = "https://scholar.cu.edu.eg/?q=afahmy/pages/dataset"
LESION: Classes = {"lesion": ("benign", "malignant")}  # the classes unless data.classes says; the normal are left out
IMAGES = {"benign": 437, "malignant": 210, "normal": 133}
LIST = re.compile(r"(?:(train|val|test)|busi_(train|val|test)(\d+))\.txt")
FURTHER_MASKS = {"benign": 17, "malignant": 1, "normal": 0}  # beside the first of each image

Files = dict[str, list[Path]]  # by name


def busi(section: Data, cache: Path) -> Dataset:
    """Images of the kinds that `data.classes` lists; normal ones, whose masks are empty, under `background`.

    As published, in a folder a kind, or as CMUNeXt and others repacked it, in images/ and masks/0/. An image's masks
    are merged. Lists beside the folders are the official split. No patients are named: images that look alike count as
    one's. Checked: the published numbers of images and masks, that each image has masks of its size, and of the values
    0 and 255 in any mode.
    """
    root, classes = find_root(section, cache, SOURCE), section.classes or LESION
    order = section.regions_class_order
    labels = label_of(classes, tuple(IMAGES), regions=order is not None)
    files: Files = {}
    notices: list[str] = []
    for kind in labels:
        images, masks, counts = _published(root, kind) if (root / "benign").is_dir() else _repacked(root, kind)
        notices += counts
        files |= pairs(images, masks, str(root))
    # by their names: copies mostly lack the normal images, which lists may name
    unused = {f"{kind} ({number + 1})" for kind in IMAGES if kind not in labels for number in range(IMAGES[kind])}
    return Dataset(
        name="busi",
        license="not stated by the authors: do not redistribute",
        citation="Al-Dhabyani et al., Dataset of breast ultrasound images, Data in Brief 28 (2020) 104863",
        note="no patient is named and hundreds of images are duplicates or nearly (Pawlowska et al. 2023): those found "
        "are kept together, others may be in two parts of the split",
        cases=_cases(files, labels),
        total=len(files),
        notices=tuple(notices),
        official=_official(root, unused) or _official(section.root, unused),
        scheme=scheme_of(classes, order),
    )


def _published(root: Path, kind: str) -> tuple[Files, Files, tuple[str, ...]]:
    """Images and masks of a kind by their names, and notices on their numbers: several masks may belong to an image."""
    images, masks = (by_id(root / kind, rf"({kind} \(\d+\)){end}\.png") for end in ("", r"_mask(?:_\d+)?"))
    further = sum(map(len, masks.values())) - len(masks)
    found = {f"{kind} images": len(images), f"further masks of {kind} images": further}
    published = dict(zip(found, (IMAGES[kind], FURTHER_MASKS[kind]), strict=True))
    return images, masks, count_notices(found, published)


def _repacked(root: Path, kind: str) -> tuple[Files, Files, tuple[str, ...]]:
    """The same of the repacked form; its masks are merged, and named as images or with an ending."""
    images = by_id(root / "images", rf"({kind} \(\d+\))\.png")
    masks = by_id(root / "masks" / "0", rf"({kind} \(\d+\))(?:_mask(?:_\d+)?)?\.png")
    what = f"{kind} images"
    return images, masks, count_notices({what: len(images)}, {what: IMAGES[kind]})


def _official(folder: Path, unused: Container[str]) -> SplitLists | None:
    """The lists in a folder: train.txt and val.txt, and those of folds, busi_train1.txt, busi_val1.txt, ...

    They follow data.classes: images of `unused` kinds are left out of them.
    """
    lists: dict[str, dict[str, tuple[str, ...]]] = {}  # by a fold's number, "" of none
    names = []
    for path in visible(folder):
        if match := LIST.fullmatch(path.name):
            ids = tuple(name for name in read_ids(path) if name not in unused)
            lists.setdefault(match[3] or "", {})[match[1] or match[2]] = ids
            names.append(path.name)
    if not lists:
        return None
    folds = [lists[number] for number in sorted((number for number in lists if number), key=int)]
    source = ", ".join(names if len(names) < 4 else [names[0], "...", names[-1]])
    return SplitLists(source, lists.get("", {}), tuple(folds))


def _cases(files: Files, labels: dict[str, int]) -> Iterator[RawCase]:
    group_of = groups_of_look_alikes({name: paths[0] for name, paths in files.items()})
    for name, paths in files.items():
        yield picture_case(name, paths, labels[name.split(" ")[0].lower()], group_of[name])
