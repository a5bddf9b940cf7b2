"""The layouts in which owners publish their data sets: where one lies in `data.root`, or which one a folder has.

Files that are no part of a layout are passed over; what lacks its counterpart, or stands twice, is named.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from llm4seg.config.schema import Data
from llm4seg.datasets.archives import ENDINGS, unpacked
from llm4seg.datasets.image_io import is_image
from llm4seg.utils.errors import InputError

REPACKED = "masks/0"  # the masks of the first class, in the form in which CMUNeXt and others repacked data sets
DEPTH = 2  # folders above a layout's own: an archive's, and one of a converted copy
# data.dataset: what lies in its root; any of several sets; * stands for any text
LAYOUTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "busi": (
        ("benign", "malignant"),
        ("images/benign (*).png", REPACKED),
        ("images/malignant (*).png", REPACKED),
    ),
    "cvc-clinicdb": (("Original", "Ground Truth"),),
    "isic": tuple(
        (f"{name}{end}",)
        for name in ("ISBI2016_ISIC_Part1_Training_Data", "ISIC-2017_Training_Data", "ISIC2018_Task1-2_Training_Input")
        for end in ("", *ENDINGS)
    ),
    "tn3k": (("trainval-image", "trainval-mask"),),
    "tnscui": (("image", "mask"),),
    "kvasir-seg": (("images", "masks"),),
    "decathlon": (("imagesTr", "labelsTr", "dataset.json"),),
    "nnunet": (("dataset.json",),),  # which may name files that lie elsewhere
    "btcv": (("Training/img", "Training/label"), ("img", "label"), ("imagesTr", "labelsTr")),
    "acdc": (("training", "testing"), ("training/patient*",)),
    "folder": (("images", "masks"),),
}


def find_root(section: Data, cache: Path, source: str) -> Path:
    """The folder in `data.root`, or in the archive that it names, that has the layout of `data.dataset`.

    `source`: where to get the data. Raises InputError where there is more than one, or none, naming the layout that it
    looks like.
    """
    root, name = section.root, section.dataset
    if not root.exists():
        pull = "; `dvc pull` fetches it" if Path(f"{root}.dvc").exists() else ""
        raise InputError(f"{root}: no such file or folder (data.root){pull}; {name} is at {source}")
    folder = unpacked(root, cache) if root.is_file() else root
    for places in _levels(folder):
        if found := [place for place in places if name in _layouts_of(place)]:
            return _only(found, folder, section)
    like = looks_like(folder)
    wanted = ", or ".join(" and ".join(parts) for parts in LAYOUTS[name] if not parts[0].endswith(ENDINGS))
    found_instead = like or f"holds {shown(folder)}"
    raise InputError(f"{root}: {found_instead}, allowed for {name}: a folder with {wanted}; {name} is at {source}")


def looks_like(folder: Path, but: str = "") -> str:
    """What layouts a folder has, or those within it, for an error; empty where it has none. `but`: one left out."""
    seen = {name for level in _levels(folder) for place in level for name in _layouts_of(place)}
    like = [name for name in LAYOUTS if name in seen and name != but]
    return f"looks like data.dataset: {' or '.join(like)}" if like else ""


def _levels(folder: Path) -> Iterator[list[Path]]:
    """The folder, its folders, and theirs."""
    level = [folder]
    for _ in range(DEPTH + 1):
        yield level
        level = [inner for one in level for inner in visible(one) if inner.is_dir()]


def _layouts_of(folder: Path) -> list[str]:
    """The datasets whose layout a folder has. What was repacked has images/ and masks/, too, but masks lie deeper."""
    found = [name for name, sets in LAYOUTS.items() if any(all(_holds(folder, one) for one in parts) for parts in sets)]
    if not _holds(folder, REPACKED):
        return found
    others = ("kvasir-seg", "folder") if "busi" in found else ("kvasir-seg",)  # folder reads such by patterns
    return [name for name in found if name not in others]


def _holds(folder: Path, part: str) -> bool:
    return any(folder.glob(part)) if "*" in part else (folder / part).exists()


def _only(found: list[Path], folder: Path, section: Data) -> Path:
    found = [place for place in found if place.name == "TIF"] or found  # CVC-ClinicDB comes with a converted copy, PNG
    if len(found) > 1:
        names = [place.relative_to(folder).as_posix() for place in found]
        raise InputError(
            f"{section.root}: found {section.dataset} in {names[0]} and {names[1]}, allowed: one; name it in data.root"
        )
    return found[0]


def shown(folder: Path) -> str:
    """The names of the first files of a folder, for a message."""
    names = [path.name for path in visible(folder)]
    return ", ".join([*names[:3], "..."] if len(names) > 3 else names) or "nothing"


def visible(folder: Path) -> list[Path]:
    """What a folder holds, by name, but for hidden files, which macOS leaves beside each file."""
    paths = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in paths if not path.name.startswith("."))


def by_id(folder: Path, pattern: str) -> dict[str, list[Path]]:
    """The files whose names match, without regard to case, by the pattern's first group; numbers in their order."""
    found: dict[str, list[Path]] = {}
    for path in visible(folder):
        if match := re.fullmatch(pattern, path.name, re.IGNORECASE):
            found.setdefault(match[1], []).append(path)
    return dict(sorted(found.items(), key=lambda item: _in_order(item[0])))


def _in_order(name: str) -> list[tuple[int, str]]:
    """A key of order in which 2 comes before 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def pairs(images: Mapping[str, list[Path]], masks: Mapping[str, list[Path]], places: str) -> dict[str, list[Path]]:
    """The image of each id, followed by its masks. Raises InputError naming what lacks its counterpart in `places`."""
    for paths in images.values():
        if len(paths) > 1:
            raise InputError(f"{paths[1]}: found two images of one name, also {paths[0].name}")
    for one, other, what in ((images, masks, "an image without a mask"), (masks, images, "a mask without an image")):
        if missing := [name for name in one if name not in other]:
            more = f" ({len(missing)} such files)" if len(missing) > 1 else ""
            raise InputError(f"{one[missing[0]][0]}: {what} in {places}{more}")
    return {name: [*images[name], *masks[name]] for name in images}


def count_notices(found: Mapping[str, int], published: Mapping[str, int]) -> tuple[str, ...]:
    """A line for each kind of file of which there are not as many as the owner publishes."""
    return tuple(
        f"found {found[what]} {what}, published are {count}"
        for what, count in published.items()
        if found[what] != count
    )


def unlabeled_notices(root: Path, images: str) -> tuple[str, ...]:
    """A line about the images of a test part, of which only the owner has labels."""
    count = sum(map(is_image, visible(root / images)))
    return (f"{images}: {count} files are left out, as they come without labels",) if count else ()
