"""Dataset `busi`: breast ultrasound images with benign and malignant lesions, or none (Al-Dhabyani et al., 2020)."""

from collections.abc import Iterator
from pathlib import Path

from llm4seg.config.schema import Data
from llm4seg.config.schema.data import Classes
from llm4seg.datasets.cases import Dataset, RawCase
from llm4seg.datasets.classes import label_of, scheme_fields
from llm4seg.datasets.layouts import by_id, count_notices, find_root, pairs
from llm4seg.datasets.look_alikes import groups_of_look_alikes
from llm4seg.datasets.picture_cases import picture_case

SOURCE = "https://scholar.cu.edu.eg/?q=afahmy/pages/dataset"
LESION: Classes = {"lesion": ("benign", "malignant")}  # the classes unless data.classes says; the normal are left out
IMAGES = {"benign": 437, "malignant": 210, "normal": 133}
FURTHER_MASKS = {"benign": 17, "malignant": 1, "normal": 0}  # beside the first of each image


def busi(section: Data, cache: Path) -> Dataset:
    """Images of the folders that `data.classes` lists; normal ones, whose masks are empty, under `background`.

    An image's masks are merged. No patients are named: images that look alike count as one's. Checked: the published
    numbers of images and masks, that each image has masks of its size, and of the values 0 and 255 in any mode.
    """
    root, classes = find_root(section, cache, SOURCE), section.classes or LESION
    order = section.regions_class_order
    labels = label_of(classes, tuple(IMAGES), regions=order is not None)
    files: dict[str, list[Path]] = {}
    notices: list[str] = []
    for kind in labels:
        images, masks = (by_id(root / kind, rf"({kind} \(\d+\)){end}\.png") for end in ("", r"_mask(?:_\d+)?"))
        further = sum(map(len, masks.values())) - len(masks)
        found = {f"{kind} images": len(images), f"further masks of {kind} images": further}
        notices += count_notices(found, dict(zip(found, (IMAGES[kind], FURTHER_MASKS[kind]), strict=True)))
        files |= pairs(images, masks, str(root / kind))
    return Dataset(
        name="busi",
        license="not stated by the authors: do not redistribute",
        citation="Al-Dhabyani et al., Dataset of breast ultrasound images, Data in Brief 28 (2020) 104863",
        note="no patient is named and hundreds of images are duplicates or nearly (Pawlowska et al. 2023): those found "
        "are kept together, others may be in two parts of the split",
        cases=_cases(files, labels),
        total=len(files),
        notices=tuple(notices),
        **scheme_fields(classes, order),
    )


def _cases(files: dict[str, list[Path]], labels: dict[str, int]) -> Iterator[RawCase]:
    group_of = groups_of_look_alikes({name: paths[0] for name, paths in files.items()})
    for name, paths in files.items():
        yield picture_case(name, paths, labels[name.split(" ")[0].lower()], group_of[name])
