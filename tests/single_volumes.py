"""A data set of one volume in each reader's layout: where its image and its mask go."""

import json
from collections.abc import Callable
from pathlib import Path

ABOUT = {"labels": {"0": "background", "1": "lesion"}, "modality": {"0": "CT"}}
ABOUT_V2 = {"labels": {"background": 0, "lesion": 1}, "channel_names": {"0": "CT"}}


def of_folder(root: Path, ending: str) -> tuple[Path, Path]:
    return root / f"images/a{ending}", root / f"masks/a{ending}"


def of_decathlon(root: Path, ending: str) -> tuple[Path, Path]:
    listed = {"image": f"./imagesTr/a{ending}", "label": f"./labelsTr/a{ending}"}
    (root / "dataset.json").write_text(json.dumps({**ABOUT, "training": [listed]}))
    (root / "imagesTr").mkdir()
    return root / f"imagesTr/a{ending}", root / f"labelsTr/a{ending}"


def of_nnunet(root: Path, ending: str) -> tuple[Path, Path]:
    (root / "dataset.json").write_text(json.dumps({**ABOUT_V2, "file_ending": ending}))
    return root / f"imagesTr/a_0000{ending}", root / f"labelsTr/a{ending}"


def of_btcv(root: Path, ending: str) -> tuple[Path, Path]:
    return root / f"img/img0001{ending}", root / f"label/label0001{ending}"


def of_acdc(root: Path, ending: str) -> tuple[Path, Path]:
    (root / "testing").mkdir()
    frame = root / "training/patient001/patient001_frame01"
    return Path(f"{frame}{ending}"), Path(f"{frame}_gt{ending}")


PLACES: dict[str, Callable[[Path, str], tuple[Path, Path]]] = {
    "folder": of_folder,
    "decathlon": of_decathlon,
    "nnunet": of_nnunet,
    "btcv": of_btcv,
    "acdc": of_acdc,
}
NIFTI = (".nii", ".nii.gz")
READABLE = {
    "folder": (*NIFTI, ".nrrd", ".mha", ".mhd", ""),  # "": a folder of DICOM
    "decathlon": (*NIFTI, ".nrrd", ".mha", ""),
    "nnunet": (".nii.gz", ".nrrd", ".mha"),
    "btcv": NIFTI,
    "acdc": NIFTI,
}
