"""Dataset `btcv`: 13 abdominal organs on CT, Beyond the Cranial Vault (Landman et al., 2015)."""

import re
from collections.abc import Iterable
from pathlib import Path

from llm4seg.config.schema import Data
from llm4seg.config.schema.data import Classes
from llm4seg.data.label_scheme import LabelScheme
from llm4seg.data.prepared import SplitLists
from llm4seg.datasets.case_files import CaseFiles, read_cases
from llm4seg.datasets.cases import Dataset
from llm4seg.datasets.dataset_json import listed, read_dataset_json
from llm4seg.datasets.layouts import by_id, count_notices, find_root, looks_like, pairs, unlabeled_notices
from llm4seg.utils.errors import InputError

SOURCE = "https://www.synapse.org/Synapse:syn3193805"
FOLDERS = (("Training/img", "Training/label"), ("img", "label"), ("imagesTr", "labelsTr"))
ORGANS = (  # of mask values 1 to 13
    *("spleen", "right_kidney", "left_kidney", "gallbladder", "esophagus", "liver", "stomach", "aorta"),
    *("inferior_vena_cava", "portal_and_splenic_veins", "pancreas", "right_adrenal_gland", "left_adrenal_gland"),
)
PUBLISHED = 30
# of UNETR's dataset_0.json, which Swin UNETR uses, too; 11 to 20 were never published
TRAIN, VAL = (*range(1, 11), *range(21, 35)), tuple(range(35, 41))
NUMBER = r"(?:img|label)(\d+)\.nii(?:\.gz)?"


def btcv(section: Data, cache: Path) -> Dataset:
    """The training volumes: of RawData, of a folder with its img/ and label/, or renamed imagesTr/ and labelsTr/.

    The official split is that of dataset_0.json or dataset.json where one lies there, else UNETR's. Checked: the
    published number of volumes, that each has labels of its size, and of the values 0 to 13.
    """
    root = find_root(section, cache, SOURCE)
    images, labels = next(pair for pair in FOLDERS if all((root / folder).is_dir() for folder in pair))
    found = pairs(_numbered(root / images), _numbered(root / labels), str(root / labels))
    if not found:
        like = looks_like(root, but="btcv")
        raise InputError(
            f"{root / images}: found no image of BTCV, allowed: names such as img0001.nii.gz"
            + f"; {root} {like}" * bool(like)
        )
    classes: Classes = {organ: (value,) for value, organ in enumerate(ORGANS, start=1)}
    return Dataset(
        name="btcv",
        license="by agreement with Synapse: do not redistribute",
        citation="Landman et al., Multi-atlas labeling beyond the cranial vault, MICCAI 2015, doi:10.7303/syn3193805",
        note="a volume a patient; published tables mostly choose a model and report it on the same 6 volumes",
        scheme=LabelScheme(ORGANS),
        cases=read_cases(
            [CaseFiles(name, name, (image,), (label,)) for name, (image, label) in found.items()],
            root,
            classes,
            section.spatial_dims,
        ),
        total=len(found) if section.spatial_dims == 3 else None,
        files=tuple(image for image, _ in found.values()),
        notices=(
            *count_notices({"volumes": len(found)}, {"volumes": PUBLISHED}),
            *unlabeled_notices(root, "Testing/img"),
            *unlabeled_notices(root, "imagesTs"),
        ),
        official=_official(root),
    )


def _numbered(folder: Path) -> dict[str, list[Path]]:
    """The files of a folder by their numbers, of four digits."""
    found: dict[str, list[Path]] = {}
    for number, paths in by_id(folder, NUMBER).items():
        found.setdefault(f"{int(number):04d}", []).extend(paths)
    return found


def _official(root: Path) -> SplitLists:
    path = next((root / name for name in ("dataset_0.json", "dataset.json") if (root / name).is_file()), None)
    if path is None:
        return SplitLists("UNETR's dataset_0.json", {"train": _ids(TRAIN), "val": _ids(VAL)})
    values = read_dataset_json(path)
    lists = {part: listed(values, key, path) for part, key in (("train", "training"), ("val", "validation"))}
    parts = {part: _ids(_number(image, path) for image, _ in own) for part, own in lists.items() if own}
    return SplitLists(path.name, parts)


def _number(image: Path, path: Path) -> int:
    match = re.fullmatch(NUMBER, image.name, re.IGNORECASE)
    if match is None:
        raise InputError(f"{path}: found {image.name}, allowed: names such as img0001.nii.gz")
    return int(match[1])


def _ids(numbers: Iterable[int]) -> tuple[str, ...]:
    return tuple(f"{number:04d}" for number in numbers)
