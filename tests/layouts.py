"""Miniatures of published data sets in their owners' layouts, with the traps of each, and their foreground.

Every writer returns the cases' foreground by id, boolean (rows, columns). Files that are no data lie beside the data.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Truth = dict[str, np.ndarray]
MASK_MODES = ("1", "L", "LA", "RGB", "RGBA", "P")


def speckle(seed: int, shape: tuple[int, int]) -> np.ndarray:
    """An image of colors, coarse enough for JPEG: uint8 (rows, columns, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BILINEAR))


def disk(seed: int, shape: tuple[int, int]) -> np.ndarray:
    """A disk somewhere in the image, boolean."""
    random = np.random.default_rng([seed, 1])
    center, radius = random.uniform(0.35, 0.65, 2) * shape, random.uniform(0.12, 0.3) * min(shape)
    rows, columns = np.indices(shape)
    inside: np.ndarray = np.hypot(rows - center[0], columns - center[1]) < radius
    return inside


def save(path: Path, array: np.ndarray, mode: str | None = None, **options: Any) -> None:
    """Write a picture; of `mode` "P" the palette's index is no gray value, of alpha the channel is constant."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array.astype(np.uint8) * 255 if array.dtype == bool else array)
    if mode == "P":
        image = Image.fromarray(array.astype(np.uint8), "P")
        image.putpalette([0, 0, 0, 255, 255, 255])
    elif mode:
        image = image.convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(0)
    image.save(path, **options)


def litter(*folders: Path) -> None:
    """What lies beside data: of macOS, of Windows, a license, a picture of another kind."""
    for folder in folders:
        for name in ("._1.png", ".DS_Store", "Thumbs.db", "LICENSE.txt", "overview.png", "__MACOSX/x.png"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(b"no picture")


def write_busi(root: Path, images: int = 6) -> Truth:
    """Names with spaces, sizes that differ, masks of every mode, several masks of one image, and look-alikes."""
    root, truth = root / "Dataset_BUSI_with_GT", {}
    for number in range(3 * images):
        kind = ("benign", "malignant", "normal")[number % 3]
        name, shape = f"{kind} ({number // 3 + (8 if number > 8 else 1)})", (40 + number, 52 - number)
        truth[name] = disk(number, shape) if kind != "normal" else np.zeros(shape, dtype=bool)
        save(root / kind / f"{name}.png", speckle(number, shape))
        save(root / kind / f"{name}_mask.png", truth[name], MASK_MODES[number % len(MASK_MODES)])
    for name, ending in (("benign (1)", "_1"), ("benign (2)", "_1"), ("benign (2)", "_2"), ("malignant (1)", "_1")):
        further = disk(len(truth) + len(name + ending), truth[name].shape)
        further[0, 0] = True  # apart from the others, which it overlaps
        truth[name] = truth[name] | further
        save(root / name.split(" ")[0] / f"{name}_mask{ending}.png", further, "RGB")
    twin = np.clip(np.asarray(Image.open(root / "benign" / "benign (2).png")).astype(int) + 2, 0, 255).astype(np.uint8)
    save(root / "malignant" / "malignant (2).png", twin[: truth["malignant (2)"].shape[0]])
    truth["malignant (2)"] = truth["benign (2)"]
    save(root / "malignant" / "malignant (2)_mask.png", truth["malignant (2)"])
    litter(root, *(root / kind for kind in ("benign", "malignant", "normal")))
    return truth


def write_kvasir(root: Path, images: int = 8) -> Truth:
    """Masks are JPEG in colors, of which no value is exactly 0 or 255 at the outline; boxes beside."""
    root, truth = root / "Kvasir-SEG", {}
    for number in range(images):
        name, shape = f"cju0qkwl35piu0993l0d{number:05d}", (40 + number, 50)
        truth[name] = disk(number, shape)
        save(root / "images" / f"{name}.jpg", speckle(number, shape))
        save(root / "masks" / f"{name}.jpg", truth[name], "RGB", quality=92)
    (root / "kavsir_bboxes.json").write_text("{}")
    litter(root, root / "images", root / "masks")
    return truth


def write_cvc(root: Path, last: int = 80) -> Truth:
    """Frames 20 to `last`: of the first sequences, whose names as text are in another order. LZW, gray and colors."""
    root, truth = root / "CVC-ClinicDB", {}
    for number in range(20, last + 1, 5):
        name, shape = str(number), (36, 48)
        truth[name] = disk(number, shape)
        save(root / "Original" / f"{name}.tif", speckle(number, shape), compression="tiff_lzw")
        save(root / "Ground Truth" / f"{name}.tif", truth[name], ("L", "RGB")[number % 2], compression="tiff_lzw")
    litter(root, root / "Original", root / "Ground Truth")
    return truth


ISIC_PARTS = {
    "2016": {
        "train": ("ISBI2016_ISIC_Part1_Training_Data", "ISBI2016_ISIC_Part1_Training_GroundTruth"),
        "test": ("ISBI2016_ISIC_Part1_Test_Data", "ISBI2016_ISIC_Part1_Test_GroundTruth"),
    },
    "2017": {
        "train": ("ISIC-2017_Training_Data", "ISIC-2017_Training_Part1_GroundTruth"),
        "val": ("ISIC-2017_Validation_Data", "ISIC-2017_Validation_Part1_GroundTruth"),
        "test": ("ISIC-2017_Test_v2_Data", "ISIC-2017_Test_v2_Part1_GroundTruth"),
    },
    "2018": {
        "train": ("ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth"),
        "val": ("ISIC2018_Task1-2_Validation_Input", "ISIC2018_Task1_Validation_GroundTruth"),
        "test": ("ISIC2018_Task1-2_Test_Input", "ISIC2018_Task1_Test_GroundTruth"),
    },
}


def write_isic(root: Path, year: str = "2018", images: int = 5) -> dict[str, Truth]:
    """The truth of each part. Superpixels and tables beside the images, masks of the second task beside the first's."""
    parts: dict[str, Truth] = {}
    for place, (part, (inputs, masks)) in enumerate(ISIC_PARTS[year].items()):
        parts[part] = {}
        for number in range(images):
            name, shape = f"ISIC_{1000 * place + number:07d}", (44, 40 + number)
            parts[part][name] = disk(int(name[5:]), shape)
            save(root / inputs / f"{name}.jpg", speckle(int(name[5:]), shape))
            save(root / inputs / f"{name}_superpixels.png", speckle(number, shape))
            ending = "Segmentation" if year == "2016" else "segmentation"
            save(root / masks / f"{name}_{ending}.png", parts[part][name])
            save(root / masks / f"{name}_attribute_globules.png", disk(number, shape))
        (root / inputs / f"{inputs}_metadata.csv").write_text("image_id,age_approximate,sex\n")
        litter(root / inputs, root / masks)
    return parts


def write_tnscui(root: Path, images: int = 8) -> Truth:
    """Endings in capitals, numbers without zeros before them, and the kinds in a table of another order."""
    root, truth, lines = root / "TNSCUI2020_train", {}, ["ID,CATE"]
    for number in range(7, 7 + images):
        truth[str(number)] = disk(number, (40, 36 + number))
        gray = speckle(number, (40, 36 + number))[..., 0]
        save(root / "image" / f"{number}.PNG", gray)
        save(root / "mask" / f"{number}.PNG", truth[str(number)])
        lines.insert(1, f"{number}.PNG,{number % 2}")
    (root / "train.csv").write_text("\n".join(lines) + "\n")
    litter(root, root / "image", root / "mask")
    return truth


TN3K_NUMBERS = (0, 2, 3, 10, 11, 200, 1001, 10000)  # with gaps; as text, 10000 comes after 1001, before 200


def write_tn3k(root: Path) -> Truth:
    """Both parts have the same names; masks are JPEG; the folds' lists hold places in the list, not names."""
    root, truth = root / "tn3k", {}
    for place, part in enumerate(("trainval", "test")):
        for number in TN3K_NUMBERS[: 8 - 4 * place]:
            name, seed = f"{part}-{number:04d}", number + 5 * place
            truth[name] = disk(seed, (40, 44))
            save(root / f"{part}-image" / f"{number:04d}.jpg", speckle(seed, (40, 44)))
            save(root / f"{part}-mask" / f"{number:04d}.jpg", truth[name], quality=92)
        lines = [f"{number:04d}.jpg,{number % 2}" for number in TN3K_NUMBERS]
        (root / f"label4{part}.csv").write_text("\n".join(lines) + "\n")
        litter(root, root / f"{part}-image", root / f"{part}-mask")
    (root / "tn3k-trainval.json").write_text(json.dumps({"train": [7, 2, 1, 3, 4, 5], "val": [0, 6]}))
    for fold in range(5):
        lists = {"train": [place for place in range(8) if place != fold], "val": [fold]}
        (root / f"tn3k-trainval-fold{fold}.json").write_text(json.dumps(lists))
    return truth


WRITERS: dict[str, Callable[[Path], Any]] = {  # by data.dataset
    "busi": write_busi,
    "cvc-clinicdb": write_cvc,
    "isic": write_isic,
    "kvasir-seg": write_kvasir,
    "tn3k": write_tn3k,
    "tnscui": write_tnscui,
}
