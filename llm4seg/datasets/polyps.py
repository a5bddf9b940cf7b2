"""Datasets `kvasir-seg` and `cvc-clinicdb`: polyps in colonoscopy."""

from bisect import bisect_left
from pathlib import Path

from llm4seg.config.schema import Data
from llm4seg.data.label_scheme import LabelScheme
from llm4seg.data.prepared import SplitLists
from llm4seg.datasets.cases import Dataset
from llm4seg.datasets.layouts import by_id, count_notices, find_root, pairs
from llm4seg.datasets.picture_cases import picture_case
from llm4seg.datasets.split_file import read_split_file
from llm4seg.utils.errors import InputError

KVASIR_SOURCE = "https://datasets.simula.no/kvasir-seg/"
CVC_SOURCE = "https://polyp.grand-challenge.org/CVCClinicDB/"
# the last frame of each video sequence, of which neighbors resemble each other
LAST_FRAMES = (
    *(25, 50, 67, 78, 103, 126, 151, 177, 199, 205, 227, 252, 277, 297, 317),
    *(342, 363, 383, 408, 428, 447, 466, 478, 503, 528, 546, 571, 591, 612),
)


def kvasir_seg(section: Data, cache: Path) -> Dataset:
    """Pairs of equal names; masks are JPEG, white above the middle.

    Checked: the published number of images, that each has a mask of its size. No patients or videos are named. The
    owners' split is in train.txt and val.txt, which they publish apart from the images: beside them in `data.root`, a
    folder then, or one of both.
    """
    root = find_root(section, cache, KVASIR_SOURCE)
    images, masks = (by_id(root / folder, r"(c[a-z0-9]{15,})\.jpe?g") for folder in ("images", "masks"))
    files = pairs(images, masks, str(root))
    return Dataset(
        name="kvasir-seg",
        license="free for research and education; commercial use needs the owners' permission",
        citation="Jha et al., Kvasir-SEG: a segmented polyp dataset, MMM 2020",
        note="no patient or video is named: images of one may be in two parts of the split",
        scheme=LabelScheme(("polyp",)),
        cases=(picture_case(name, paths, 1) for name, paths in files.items()),
        total=len(files),
        notices=count_notices({"images": len(files)}, {"images": 1000}),
        official=_official(section.root) or _official(root),
    )


def _official(folder: Path) -> SplitLists | None:
    lists = {part: f"{part}.txt" for part in ("train", "val") if (folder / f"{part}.txt").is_file()}
    return read_split_file(folder, lists) if lists else None


def cvc_clinicdb(section: Data, cache: Path) -> Dataset:
    """Frames of 29 video sequences, each of which is a group; TIFF or PNG, of masks white is above the middle.

    Checked: the published number of frames, that each has a mask of its size.
    """
    root = find_root(section, cache, CVC_SOURCE)
    images, masks = (by_id(root / folder, r"0*(\d+)\.(?:tiff?|png)") for folder in ("Original", "Ground Truth"))
    files = pairs(images, masks, str(root))
    if beyond := [paths[0] for name, paths in files.items() if not 1 <= int(name) <= LAST_FRAMES[-1]]:
        raise InputError(
            f"{beyond[0]}: found this frame, allowed: 1 to {LAST_FRAMES[-1]}, of which sequences are known"
        )
    return Dataset(
        name="cvc-clinicdb",
        license="for research only",
        citation="Bernal et al., WM-DOVA maps for accurate polyp highlighting in colonoscopy, CMIG 43 (2015) 99-111",
        note="29 video sequences, kept together; published tables mostly split the 612 frames at random, which leaks",
        scheme=LabelScheme(("polyp",)),
        cases=(
            picture_case(name, paths, 1, f"sequence-{bisect_left(LAST_FRAMES, int(name)) + 1:02d}", exact=False)
            for name, paths in files.items()
        ),
        total=len(files),
        notices=count_notices({"frames": len(files)}, {"frames": LAST_FRAMES[-1]}),
    )
