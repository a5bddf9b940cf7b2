"""Reader by reader: files that are damaged or of another case, and roots of another data set, are named in one line."""

import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from llm4seg.config import Config
from llm4seg.config.schema import SECTIONS_ALONE
from llm4seg.data.prepared import Prepared
from llm4seg.data.rules import split_by_rule
from llm4seg.data.split import Split
from llm4seg.datasets.cases import RawCase
from llm4seg.datasets.registry import open_dataset
from llm4seg.datasets.split_file import read_split_file
from llm4seg.datasets.writer import write_prepared
from llm4seg.utils.errors import InputError
from tests import layouts, volume_layouts
from tests.layouts import save as save_picture
from tests.single_volumes import PLACES
from tests.tiny import PARAMS, data_section

LESION: dict[str, Any] = {  # data.classes for a mask of zeros and ones
    "folder": {"lesion": [1]},
    "decathlon": None,
    "nnunet": None,
    "btcv": {"lesion": ["spleen"]},
    "acdc": {"lesion": ["right_ventricle"]},
}
WRITERS: dict[str, Callable[[Path], Any]] = {**layouts.WRITERS, **volume_layouts.WRITERS}
SHAPE = (5, 6, 4)
AFFINE = np.diag([-0.5, -0.6, 3.0, 1.0])
IMAGE = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
MASK = np.zeros(SHAPE, np.uint8)
MASK[1:3, 2:4, 1:3] = 1


def save(path: Path, values: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    file: Any = nibabel.Nifti1Image(values, None)
    file.header.set_sform(affine, 2)  # alone: a qform cannot hold every affine
    nibabel.save(file, path)


def one_volume(root: Path, dataset: str) -> tuple[Path, Path]:
    """A data set of one good case; where its image and its mask are."""
    root.mkdir(exist_ok=True)
    image, mask = PLACES[dataset](root, ".nii.gz")
    save(image, IMAGE)
    save(mask, MASK)
    return image, mask


def prepared_of(
    root: Path, dataset: str, spatial_dims: int = 3, classes: Any = None, split_file: str | None = None
) -> Prepared:
    section = data_section(root, spatial_dims, dataset, classes=classes, size=[8] * spatial_dims)
    lists = read_split_file(root, split_file)
    return write_prepared(open_dataset(section, root.parent / "cache"), section, root.parent / "prepared", lists)


def split_of(prepared: Prepared, **changes: Any) -> Split:
    dotted = {f"split.{name}": value for name, value in changes.items()}
    return split_by_rule(prepared, Config.load(PARAMS).override(dotted, SECTIONS_ALONE).split)


def message_of(call: Callable[..., Any], *arguments: Any, **named: Any) -> str:
    with pytest.raises(InputError) as raised:
        call(*arguments, **named)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def moved(values: np.ndarray, flip: int) -> tuple[np.ndarray, np.ndarray]:
    """The mask in another orientation, 20 mm off its image."""
    affine = AFFINE.copy()
    affine[flip, flip] *= -1
    affine[0, 3] += 20
    return np.flip(values, flip).copy(), affine


@pytest.mark.parametrize("dataset", PLACES)
def test_files_that_are_damaged_or_of_another_case(tmp_path: Path, dataset: str) -> None:
    image, mask = one_volume(tmp_path / "raw", dataset)
    arguments = (tmp_path / "raw", dataset, 3, LESION[dataset])
    prepared_of(*arguments)  # the good ones are fine
    with_nan = IMAGE.copy()
    with_nan[0, 0, :3] = np.nan, np.inf, np.nan
    for path, values, affine, words in (
        (image, IMAGE, np.diag([0.0, 1, 1, 1]), "its affine has no inverse"),
        (image, with_nan, AFFINE, "has 3 NaN or infinite values"),
        (mask, MASK[:, :, :3], AFFINE, "size (5, 6, 3) differs from (5, 6, 4) of "),
        (mask, *moved(MASK, 0), "oriented RPS, the image LPS; turned to it, it lies up to "),
        (mask, MASK * 70, AFFINE, "unknown mask value 70; allowed: 0, 1"),
        (mask, np.where(MASK > 0, np.nan, 0), AFFINE, "a mask must have a number everywhere, found NaN"),
    ):
        content = path.read_bytes()
        save(path, values, affine)
        message = message_of(prepared_of, *arguments)
        assert words in message
        assert path.name in message.split(": ")[0]
        path.write_bytes(content)
    image.write_bytes(image.read_bytes()[:-20])
    assert f"{image.name}: cannot be read as an image: damaged: " in message_of(prepared_of, *arguments)


@pytest.mark.parametrize("dataset", PLACES)
def test_a_mask_elsewhere_is_noticed_and_one_far_off_refused(tmp_path: Path, dataset: str) -> None:
    _, mask = one_volume(tmp_path / "raw", dataset)
    away = AFFINE.copy()
    away[0, 3] += 0.4
    save(mask, MASK, away)
    (notice,) = [
        one for one in prepared_of(tmp_path / "raw", dataset, 3, LESION[dataset]).notices if "lies up to" in one
    ]
    assert mask.name in notice
    assert "0.4 mm off its image" in notice
    away[0, 3] += 20
    save(mask, MASK, away)
    assert f"{mask.name}: lies up to 20.4 mm off its image" in message_of(
        prepared_of, tmp_path / "raw", dataset, 3, LESION[dataset]
    )


@pytest.mark.parametrize("dataset", PLACES)
def test_one_case_is_prepared_and_not_split(tmp_path: Path, dataset: str) -> None:
    """As a volume it is one group, too few for any rule; its slices are enough for blocks."""
    one_volume(tmp_path / "raw", dataset)
    prepared = prepared_of(tmp_path / "raw", dataset, 3, LESION[dataset])
    assert len(prepared.cases) == 1
    enough = "train, val and test need 3 or more"
    for rule, words in (("auto", enough), ("group", enough), ("random", "found random and 1 case; it needs 2 or more")):
        assert words in message_of(split_of, prepared, rule=rule)
    assert "is no slice of a volume" in message_of(split_of, prepared, rule="block")


@pytest.mark.parametrize("dataset", PLACES)
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_one_slice(tmp_path: Path, dataset: str, spatial_dims: int) -> None:
    image, mask = one_volume(tmp_path / "raw", dataset)
    save(image, IMAGE[..., 1:2])
    save(mask, MASK[..., 1:2])
    (case,) = prepared_of(tmp_path / "raw", dataset, spatial_dims, LESION[dataset]).cases.values()
    assert case.shape == (6, 5, 1)[:spatial_dims]
    assert case.pixels == {"lesion": 4}


def test_one_picture_is_not_split(tmp_path: Path) -> None:
    save_picture(tmp_path / "raw/images/a.png", layouts.speckle(0, (20, 20)))
    save_picture(tmp_path / "raw/masks/a.png", layouts.disk(0, (20, 20)))
    prepared = prepared_of(tmp_path / "raw", "folder", 2)
    assert "by which 1 cases make 1 groups to keep together" in message_of(split_of, prepared, rule="auto")


@pytest.mark.parametrize(
    ("dataset", "name", "pattern"),
    [("decathlon", "prostate_16", "labelsTr/prostate_*"), ("acdc", "patient002_frame01", "patient*/*_gt.nii.gz")],
)
def test_a_class_that_no_case_has(tmp_path: Path, dataset: str, name: str, pattern: str) -> None:
    """In none of train: the split says so. In none at all: refused."""
    WRITERS[dataset](tmp_path / "raw")
    (tmp_path / "raw" / "test.txt").write_text(name)
    absent = prepared_of(tmp_path / "raw", dataset).classes[-1]
    labels = {path.name.split(".")[0].removesuffix("_gt"): path for path in (tmp_path / "raw").rglob(pattern)}
    remains = labels.pop(name)
    for path in labels.values():
        remove_last_class(path)
    prepared = prepared_of(tmp_path / "raw", dataset, split_file="test.txt")
    split = split_of(prepared, rule="file", file="test.txt")
    assert split.test == (name,)
    assert f"class {absent!r} is in no case of train, so it cannot be learned" in split.warnings
    remove_last_class(remains)
    assert f"class {absent!r} occurs in none of the " in message_of(prepared_of, tmp_path / "raw", dataset)


def remove_last_class(path: Path) -> None:
    file: Any = nibabel.load(path)
    values = np.asanyarray(file.dataobj)
    nibabel.save(nibabel.Nifti1Image(np.minimum(values, values.max() - 1), file.affine), path)


MASKS = {  # of an image
    "busi": "{}_mask.png",
    "cvc-clinicdb": "Ground Truth/{}.tif",
    "isic": "*_GroundTruth/{}_segmentation.png",
    "kvasir-seg": "masks/{}.jpg",
    "tn3k": "trainval-mask/{}.jpg",
    "tnscui": "mask/{}.PNG",
}


@pytest.mark.parametrize("dataset", layouts.WRITERS)
def test_pictures_that_were_cut_off(tmp_path: Path, dataset: str) -> None:
    """The image of a case, and its mask."""
    WRITERS[dataset](tmp_path / "raw")
    section = data_section(tmp_path / "raw", dataset=dataset)

    def first() -> RawCase:
        return next(iter(open_dataset(section, tmp_path / "cache").cases))

    (image,) = (path for path in (tmp_path / "raw").rglob(first().source) if "superpixels" not in path.name)
    (mask,) = (tmp_path / "raw").rglob(MASKS[dataset].format(image.stem))
    for path in (image, mask):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        assert message_of(first).startswith(f"{path}: cannot be read as an image: ")
        path.write_bytes(content)


def unknown_id(root: Path, dataset: str) -> str:
    """Name an id that no case has in the owner's lists; the file's name."""
    if dataset == "nnunet":
        (path,) = root.rglob("splits_final.json")
        path.write_text(json.dumps([{"train": ["a_001", "nobody"], "val": ["c 2"]}]))
    elif dataset == "btcv":
        path = root / "Abdomen" / "RawData" / "dataset_0.json"
        listed = [{"image": f"img/img{n:04d}.nii.gz", "label": f"label/label{n:04d}.nii.gz"} for n in (1, 2, 77)]
        path.write_text(json.dumps({"training": listed[1:], "validation": listed[:1]}))
    else:
        path = root / "Kvasir-SEG" / "train.txt"
        names = [one.stem for one in sorted((path.parent / "images").glob("cju*"))]
        path.write_text("\n".join([*names[1:], "nobody"]))
        path.with_name("val.txt").write_text(names[0])
    return path.name


@pytest.mark.parametrize("dataset", ["nnunet", "btcv", "kvasir-seg"])
def test_an_owners_list_that_names_unknown_cases(tmp_path: Path, dataset: str) -> None:
    WRITERS[dataset](tmp_path / "raw")
    name = unknown_id(tmp_path / "raw", dataset)
    prepared = prepared_of(tmp_path / "raw", dataset, spatial_dims=2 if dataset == "kvasir-seg" else 3)
    message = message_of(split_of, prepared, rule="official", fold=0 if dataset == "nnunet" else None)
    unknown = "0077" if dataset == "btcv" else "nobody"
    found = rf"official split \(.*{name}.*\): found 1 of \d+ ids that no case has, the first '{unknown}' in train; "
    assert re.fullmatch(found + "allowed: ids such as .*", message)


@pytest.mark.parametrize("dataset", [*WRITERS, "folder"])
def test_a_root_of_another_layout(tmp_path: Path, dataset: str) -> None:
    """Whatever lies there is named."""
    for other, write in WRITERS.items():
        if other != dataset and {other, dataset} != {"kvasir-seg", "folder"}:
            write(tmp_path / other)
            spatial_dims = 3 if dataset in volume_layouts.WRITERS else 2
            section = data_section(tmp_path / other, spatial_dims, dataset)
            message = message_of(lambda: list(open_dataset(section, tmp_path / "cache").cases))  # noqa: B023
            assert f"{tmp_path / other}" in message
            assert other in message.partition("looks like data.dataset: ")[2].partition(", allowed")[0]


@pytest.mark.parametrize("dataset", WRITERS)
def test_archives_of_every_reader(tmp_path: Path, dataset: str) -> None:
    """Truncated, or with a path that leaves the folder, or a link: nothing is read, and nothing is left."""
    WRITERS[dataset](tmp_path / "raw")
    spatial_dims = 3 if dataset in volume_layouts.WRITERS else 2
    whole = Path(shutil.make_archive(str(tmp_path / "whole"), "zip", tmp_path / "raw"))
    cut, leaves, link = (tmp_path / f"{name}.zip" for name in ("cut", "leaves", "link"))
    cut.write_bytes(whole.read_bytes()[:-200])
    for path, name, mode in ((leaves, "../evil.txt", 0o100644), (link, "a", 0o120777)):
        shutil.copy(whole, path)
        with zipfile.ZipFile(path, "a") as archive:
            member = zipfile.ZipInfo(name)
            member.external_attr = mode << 16
            archive.writestr(member, "/etc/passwd")
    for path, words in (
        (cut, "cannot be unpacked: "),
        (leaves, "found '../evil.txt', a path that leaves its folder, allowed: files and folders below it"),
        (link, "found 'a', a link or device, allowed: files and folders below it"),
    ):
        message = message_of(open_dataset, data_section(path, spatial_dims, dataset), tmp_path / "cache")
        assert message.startswith(f"{path}: {words}")
    assert not [*(tmp_path / "cache").rglob("*.*")]
    assert not [*tmp_path.rglob("evil*")]
