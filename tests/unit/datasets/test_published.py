"""Published data sets in their owners' layouts: every case pixel for pixel, and what a copy of the data can lack."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from llm4seg.data.prepared import SplitLists
from llm4seg.datasets.cases import Dataset, RawCase
from llm4seg.datasets.registry import open_dataset
from llm4seg.utils.errors import InputError
from tests import layouts
from tests.layouts import Truth
from tests.tiny import data_section


def opened(root: Path, dataset: str, classes: dict[str, Any] | None = None) -> Dataset:
    return open_dataset(data_section(root, dataset=dataset, classes=classes), root.parent / "cache")


def read(root: Path, dataset: str, classes: dict[str, Any] | None = None) -> dict[str, RawCase]:
    return {case.id: case for case in opened(root, dataset, classes).cases}


def check(cases: dict[str, RawCase], truth: Truth, root: Path, label: int = 1) -> None:
    """The cases are these, in order, with these labels, and each image as Pillow shows its file."""
    assert cases.keys() == truth.keys()
    for name, case in cases.items():
        assert np.array_equal(case.labels, truth[name] * label), name
        assert case.labels.dtype == np.uint8
        (file,) = root.rglob(case.source)
        assert np.array_equal(case.image, np.moveaxis(np.asarray(Image.open(file).convert("RGB")), -1, 0)), name
        assert (case.spacing, case.unit) == ((1.0, 1.0), "px")
        assert case.geometry is not None


def refusal(root: Path, dataset: str, classes: dict[str, Any] | None = None) -> str:
    with pytest.raises(InputError) as raised:
        read(root, dataset, classes)
    assert "\n" not in str(raised.value)
    return str(raised.value).replace(f"{root}", "ROOT")


def test_busi(tmp_path: Path) -> None:
    """Masks of every mode, several of one image, names in the order of their numbers; the normal ones are left out."""
    truth = layouts.write_busi(tmp_path)
    lesions = {name: mask for name, mask in truth.items() if "normal" not in name}
    dataset = opened(tmp_path, "busi")
    assert (dataset.classes, dataset.total) == (("lesion",), len(lesions))
    assert dataset.notices == (
        "found 6 benign images, published are 437",
        "found 3 further masks of benign images, published are 17",
        "found 6 malignant images, published are 210",
    )
    cases = {case.id: case for case in dataset.cases}
    check(cases, lesions, tmp_path)
    assert [name for name in cases if "benign" in name] == [f"benign ({number})" for number in (1, 2, 3, 11, 12, 13)]
    groups = {name: case.group for name, case in cases.items()}
    assert groups.pop("malignant (2)") == "benign (2)"  # it looks like it
    assert all(name == group for name, group in groups.items())


def test_busis_kinds_are_classes_and_its_normal_images_asked_for(tmp_path: Path) -> None:
    truth = layouts.write_busi(tmp_path)
    cases = read(tmp_path, "busi", {"malignant": ["malignant"], "background": ["normal"], "benign": ["benign"]})
    assert cases.keys() == truth.keys()
    for name, case in cases.items():
        label = {"malignant": 1, "normal": 0, "benign": 2}[name.split(" ")[0]]
        assert np.array_equal(case.labels, truth[name] * label)
        assert case.notices == ()
    only = read(tmp_path, "busi", {"tumor": ["malignant"]})
    check(only, {name: mask for name, mask in truth.items() if "malignant" in name}, tmp_path)
    message = "data.classes.a: found 'cyst', allowed: benign, malignant, normal; or null"
    assert refusal(tmp_path, "busi", {"a": ["cyst"]}) == message


def test_kvasir_seg(tmp_path: Path) -> None:
    """Masks in JPEG colors; what is white is above the middle."""
    truth = layouts.write_kvasir(tmp_path)
    values = np.unique(np.asarray(Image.open(next((tmp_path / "Kvasir-SEG" / "masks").glob("*.jpg")))))
    assert len(values) > 2  # the trap is there
    dataset = opened(tmp_path / "Kvasir-SEG", "kvasir-seg")
    assert dataset.notices == ("found 8 images, published are 1000",)
    check({case.id: case for case in dataset.cases}, truth, tmp_path)
    assert opened(tmp_path, "kvasir-seg", {"lesion": ["polyp"]}).classes == ("lesion",)


def test_cvc_clinicdb(tmp_path: Path) -> None:
    """Sequences are groups: their last frames are 25, 50, 67, 78."""
    truth = layouts.write_cvc(tmp_path)
    cases = read(tmp_path, "cvc-clinicdb")
    check(cases, truth, tmp_path)
    groups = {int(name): int(case.group.removeprefix("sequence-")) for name, case in cases.items()}
    assert groups == {number: 1 + sum(number > last for last in (25, 50, 67, 78)) for number in map(int, truth)}
    copy = tmp_path / "copy" / "archive"
    shutil.copytree(tmp_path / "CVC-ClinicDB", copy / "TIF")
    shutil.copytree(tmp_path / "CVC-ClinicDB", copy / "PNG")
    assert read(copy.parent, "cvc-clinicdb").keys() == truth.keys()
    layouts.save(copy / "TIF" / "Original" / "613.tif", layouts.speckle(1, (36, 48)))
    layouts.save(copy / "TIF" / "Ground Truth" / "613.tif", layouts.disk(1, (36, 48)))
    assert refusal(copy.parent, "cvc-clinicdb").endswith("613.tif: found this frame, allowed: 1 to 612, of which seque"
                                                         "nces are known")  # fmt: skip


@pytest.mark.parametrize(("year", "published"), [("2016", 900), ("2017", 2000), ("2018", 2594)])
def test_isic(tmp_path: Path, year: str, published: int) -> None:
    """Superpixels, tables and the second task's masks are passed over."""
    parts = layouts.write_isic(tmp_path, year)
    dataset = opened(tmp_path, "isic")
    assert (dataset.name, dataset.license[:2]) == (f"isic-{year}", "CC")
    assert dataset.notices[0] == f"found 5 images of train, published are {published}"
    truth = {name: mask for part in parts.values() for name, mask in part.items()}
    check({case.id: case for case in dataset.cases}, truth, tmp_path)


def test_isic_as_the_archives_of_its_parts(tmp_path: Path) -> None:
    """Some hold a folder of their own name, some the files; a part without masks is left out and said."""
    parts, raw = layouts.write_isic(tmp_path / "written"), tmp_path / "raw"
    raw.mkdir()
    for number, folder in enumerate(sorted((tmp_path / "written").iterdir())):
        if folder.name != "ISIC2018_Task1_Test_GroundTruth":
            base = {"base_dir": folder.name} if number % 2 else {}
            shutil.make_archive(str(raw / folder.name), "zip", folder.parent if base else folder, **base)
    dataset = opened(raw, "isic")
    truth = parts["train"] | parts["val"]
    check({case.id: case for case in dataset.cases}, truth, tmp_path / "written")
    assert dataset.notices[-1] == (
        "the test part of ISIC 2018 is left out: there is no ISIC2018_Task1_Test_GroundTruth"
    )
    layouts.write_isic(raw, "2017")
    message = "ROOT: found images of ISIC 2017 and 2018, allowed: one year, since they share images"
    assert refusal(raw, "isic") == message


def test_tnscui(tmp_path: Path) -> None:
    """Names as numbers in their order, endings in capitals; gray becomes three channels; kinds by the table."""
    truth = layouts.write_tnscui(tmp_path)
    check(read(tmp_path, "tnscui"), truth, tmp_path)
    assert list(truth) == [str(number) for number in range(7, 15)]
    malignant = {name: mask for name, mask in truth.items() if int(name) % 2}
    check(read(tmp_path, "tnscui", {"tumor": ["malignant"]}), malignant, tmp_path)
    table = tmp_path / "TNSCUI2020_train" / "train.csv"
    table.write_text("ID,CATE\n7.PNG,1\n")
    assert refusal(tmp_path, "tnscui", {"tumor": ["malignant"]}).endswith(
        "train.csv: has no line for 8, which data.classes needs: tumor"
    )
    table.write_text("ID,CATE\n7.PNG,2\n")
    assert "train.csv: found 7.PNG,2, allowed: an image and 0" in refusal(tmp_path, "tnscui", {"t": ["benign"]})
    table.unlink()
    check(read(tmp_path, "tnscui"), truth, tmp_path)
    assert "train.csv: no such file, which data.classes needs" in refusal(tmp_path, "tnscui", {"t": ["benign"]})


def test_tn3k(tmp_path: Path) -> None:
    """Both parts have files of the same names, which the ids tell apart."""
    truth = layouts.write_tn3k(tmp_path)
    cases = read(tmp_path, "tn3k")
    assert cases.keys() == truth.keys()
    for name, case in cases.items():
        assert np.array_equal(case.labels, truth[name])
    kinds = read(tmp_path, "tn3k", {"benign": ["benign"], "malignant": ["malignant"]})
    for name, case in kinds.items():
        assert np.array_equal(case.labels, truth[name] * (1 + int(name.split("-")[1]) % 2))


def test_the_owners_splits(tmp_path: Path) -> None:
    """TN3K's lists hold places in the list of files, not their names; they follow the classes that are in use."""
    layouts.write_tn3k(tmp_path / "a")
    official = opened(tmp_path / "a", "tn3k").official
    assert official is not None
    trainval = [f"trainval-{number:04d}" for number in layouts.TN3K_NUMBERS]
    assert official.parts == {
        "train": tuple(trainval[place] for place in (7, 2, 1, 3, 4, 5)),
        "val": (trainval[0], trainval[6]),
        "test": ("test-0000", "test-0002", "test-0003", "test-0010"),
    }
    assert [fold["val"] for fold in official.folds] == [(name,) for name in trainval[:5]]
    assert official.folds[1]["train"] == (trainval[0], *trainval[2:])
    chosen = opened(tmp_path / "a", "tn3k", {"malignant": ["malignant"]}).official
    assert chosen is not None
    assert (chosen.parts["val"], chosen.parts["test"]) == (("trainval-1001",), ("test-0003",))
    (tmp_path / "a" / "tn3k" / "tn3k-trainval-fold3.json").write_text('{"train": [0, 8], "val": [1]}')
    message = "tn3k-trainval-fold3.json: allowed in 'train': a list of numbers from 0 to 7, of images"
    assert refusal(tmp_path / "a", "tn3k").endswith(message)

    names = [*layouts.write_kvasir(tmp_path / "b")]
    assert opened(tmp_path / "b", "kvasir-seg").official is None
    (tmp_path / "b" / "train.txt").write_text("\n".join(names[2:]))
    assert opened(tmp_path / "b", "kvasir-seg").official == SplitLists("train.txt", {"train": tuple(names[2:])})
    (tmp_path / "b" / "val.txt").write_text("\n".join(names[:2]) + "\n")
    official = opened(tmp_path / "b", "kvasir-seg").official
    assert official is not None
    assert official.parts == {"train": tuple(names[2:]), "val": tuple(names[:2])}

    parts = layouts.write_isic(tmp_path / "c", "2016")
    official = opened(tmp_path / "c", "isic").official
    assert official is not None
    assert official.parts == {part: tuple(truth) for part, truth in parts.items()}


@pytest.mark.parametrize("dataset", layouts.WRITERS)
def test_what_a_copy_lacks_is_named(tmp_path: Path, dataset: str) -> None:
    layouts.WRITERS[dataset](tmp_path)
    first = next(iter(read(tmp_path, dataset).values()))
    (image,) = (path for path in tmp_path.rglob(first.source) if "superpixels" not in path.name)
    content = image.read_bytes()
    image.unlink()
    assert "a mask without an image in ROOT" in refusal(tmp_path, dataset)
    layouts.save(image, layouts.speckle(0, (9, 9)))
    assert f"differs from 9 x 9 of ROOT/{image.relative_to(tmp_path).as_posix()}" in refusal(tmp_path, dataset)
    image.write_bytes(content)
    folders = {path.parent for path in tmp_path.rglob("*") if path.stem.startswith(image.stem) and path != image}
    for path in [path for folder in folders for path in folder.iterdir() if path.stem.startswith(image.stem)]:
        path.unlink() if path != image else None
    assert "an image without a mask in ROOT" in refusal(tmp_path, dataset)


@pytest.mark.parametrize("dataset", ["busi", "isic", "tnscui"])
def test_a_resized_mask_is_refused(tmp_path: Path, dataset: str) -> None:
    """Its values between 0 and 255 would be lesion or not by chance."""
    layouts.WRITERS[dataset](tmp_path)
    masks = [path for path in tmp_path.rglob("*") if path.is_file() and "mask" in str(path.relative_to(tmp_path))]
    masks = masks or [*tmp_path.rglob("*_segmentation.png")]
    mask = next(path for path in sorted(masks) if path.suffix.lower() == ".png" and path.stat().st_size > 50)
    gray = np.asarray(Image.open(mask).convert("L")).copy()
    gray[3, 3] = 100
    layouts.save(mask, gray)
    assert refusal(tmp_path, dataset).endswith(
        f"{mask.name}: found the value 100 in a mask, allowed: 0 and 255; a resized copy has others"
    )


def test_a_mask_in_which_nothing_is_marked_is_said(tmp_path: Path) -> None:
    truth = layouts.write_kvasir(tmp_path)
    name = next(iter(truth))
    layouts.save(tmp_path / "Kvasir-SEG" / "masks" / f"{name}.jpg", np.zeros_like(truth[name]), quality=92)
    case = read(tmp_path, "kvasir-seg")[name]
    assert case.notices == (f"images/{name}.jpg: nothing is marked in its mask",)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (lambda mask: mask.astype(np.uint8), "0 to 1"),
        (lambda mask: 300 + 65000 * mask.astype(np.uint16), "300 to 65300"),
        (lambda mask: mask.astype(np.uint8) * np.uint8(100), "0 to 100"),
    ],
)
def test_masks_of_other_values_than_8_bits_have(
    tmp_path: Path, values: Callable[[np.ndarray], np.ndarray], found: str
) -> None:
    """Of 0 and 1 nothing would be white, of 16 bits all."""
    truth = layouts.write_cvc(tmp_path)
    path = tmp_path / "CVC-ClinicDB/Ground Truth/25.tif"
    layouts.save(path, values(truth["25"]))
    assert refusal(tmp_path, "cvc-clinicdb") == (
        f"ROOT/CVC-ClinicDB/Ground Truth/25.tif: found {found} in a mask, allowed: 0 to 255, what is marked above 127"
    )
    layouts.save(path, truth["25"].astype(np.uint8) * np.uint8(200))
    assert np.array_equal(read(tmp_path, "cvc-clinicdb")["25"].labels, truth["25"])
