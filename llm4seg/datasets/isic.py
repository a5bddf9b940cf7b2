"""Dataset `isic`: skin lesions in dermoscopy, the segmentation task of the ISIC challenges 2016, 2017 and 2018."""

from dataclasses import dataclass
from pathlib import Path

from llm4seg.config.schema import Data
from llm4seg.data.label_scheme import LabelScheme
from llm4seg.data.prepared import SplitLists
from llm4seg.datasets.archives import ENDINGS, unpacked
from llm4seg.datasets.cases import Dataset
from llm4seg.datasets.layouts import by_id, count_notices, find_root, pairs
from llm4seg.datasets.picture_cases import picture_case
from llm4seg.utils.errors import InputError

SOURCE = "https://challenge.isic-archive.com/data/"
CC_0, BY_NC = "CC0 1.0", "CC BY-NC 4.0 (https://creativecommons.org/licenses/by-nc/4.0/): no commercial use"


@dataclass(frozen=True)
class _Part:
    """A part of a year's challenge: its folders of images and masks, and the published number of images."""

    name: str
    images: str
    masks: str
    count: int


def _parts(images: str, masks: str, *named: tuple[str, str, int]) -> tuple[_Part, ...]:
    return tuple(_Part(part, images.format(word), masks.format(word), count) for part, word, count in named)


YEARS = {
    "2016": _parts(
        "ISBI2016_ISIC_Part1_{}_Data",
        "ISBI2016_ISIC_Part1_{}_GroundTruth",
        ("train", "Training", 900),
        ("test", "Test", 379),
    ),
    "2017": _parts(
        "ISIC-2017_{}_Data",
        "ISIC-2017_{}_Part1_GroundTruth",
        ("train", "Training", 2000),
        ("val", "Validation", 150),
        ("test", "Test_v2", 600),
    ),
    "2018": _parts(
        "ISIC2018_Task1-2_{}_Input",
        "ISIC2018_Task1_{}_GroundTruth",
        ("train", "Training", 2594),
        ("val", "Validation", 100),
        ("test", "Test", 1000),
    ),
}


def isic(section: Data, cache: Path) -> Dataset:
    """The parts of one year that are there with images and masks, as folders or as the archives of these names.

    Checked: that there is one year, whose images the others' repeat; the published number of images of each part; that
    each image has a mask of its size, of the values 0 and 255.
    """
    root = find_root(section, cache, SOURCE)
    year = _year(root)
    files: dict[str, list[Path]] = {}
    parts: dict[str, tuple[str, ...]] = {}
    notices: list[str] = []
    for part in YEARS[year]:
        images, masks = _folder(root, part.images, cache), _folder(root, part.masks, cache)
        if images is None or masks is None:
            missing = [name for name, there in ((part.images, images), (part.masks, masks)) if there is None]
            notices.append(f"the {part.name} part of ISIC {year} is left out: there is no {' and no '.join(missing)}")
            continue
        found = pairs(
            by_id(images, r"(ISIC_\d{7})\.jpe?g"), by_id(masks, r"(ISIC_\d{7})_segmentation\.png"), str(masks)
        )
        notices += count_notices({f"images of {part.name}": len(found)}, {f"images of {part.name}": part.count})
        if twice := files.keys() & found.keys():
            raise InputError(f"{found[min(twice)][0]}: found in two parts of ISIC {year}, allowed: in one")
        files |= found
        parts[part.name] = tuple(found)
    if not files:
        raise InputError(f"{root}: {notices[0]}, allowed: a part with both")
    return Dataset(
        name=f"isic-{year}",
        license=BY_NC if year == "2018" else CC_0,
        citation=f"ISIC {year} challenge, task of lesion segmentation, {SOURCE}",
        note="no patient is named, and duplicates are known within and across parts and years (Cassidy et al. 2022)",
        scheme=LabelScheme(("lesion",)),
        cases=(picture_case(name, paths, 1) for name, paths in files.items()),
        total=len(files),
        notices=tuple(notices),
        official=SplitLists(f"ISIC {year}'s parts", parts) if len(parts) > 1 else None,
    )


def _year(root: Path) -> str:
    found = [year for year, parts in YEARS.items() if any(_path(root, part.images) for part in parts)]
    if len(found) != 1:
        raise InputError(
            f"{root}: found images of ISIC {' and '.join(found)}, allowed: one year, since they share images"
        )
    return found[0]


def _path(root: Path, name: str) -> Path | None:
    """The folder of a part, or its archive."""
    return next((path for end in ("", *ENDINGS) if (path := root / f"{name}{end}").exists()), None)


def _folder(root: Path, name: str, cache: Path) -> Path | None:
    """The folder of a part, out of its archive where it is none; some unpack it into a folder of its own name."""
    path = _path(root, name)
    if path is None:
        return None
    folder = unpacked(path, cache) if path.is_file() else path
    return folder / name if (folder / name).is_dir() else folder
