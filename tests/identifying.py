"""A patient's name in every field of free text that image files have, beside unchanged pixels."""

import gzip
from pathlib import Path
from typing import Any

import nibabel
import pydicom
import tifffile
from nibabel.nifti1 import Nifti1Extension
from PIL import Image
from PIL.PngImagePlugin import PngInfo

SECRET = "Zweistein7731"
NAMES = (SECRET, "19310401", "Markedtown")  # of a patient, the days, the place
TEXT = f"{SECRET} 19310401 Markedtown"
NIFTI_FIELDS = ("descrip", "aux_file", "db_name", "intent_name", "data_type")
DICOM_TAGS = {
    **dict.fromkeys(("PatientName", "PatientID", "OtherPatientNames", "AccessionNumber", "StudyID"), SECRET),
    **dict.fromkeys(("PatientComments", "StudyDescription", "SeriesDescription", "ImageComments"), TEXT),
    **dict.fromkeys(("PatientBirthDate", "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"), "19310401"),
    **dict.fromkeys(("InstitutionName", "InstitutionAddress", "StationName"), "Markedtown"),
    **dict.fromkeys(("ReferringPhysicianName", "OperatorsName", "ProtocolName", "DeviceSerialNumber"), SECRET),
}


def identify(root: Path) -> int:
    """Write the names into all image files below a folder; the number of files."""
    done = 0
    for path in sorted(root.rglob("*")):
        kind = next((ending for ending in WRITERS if path.name.lower().endswith(ending)), None)
        if path.is_file() and kind and path.stat().st_size > 20 and not path.name.startswith("."):
            WRITERS[kind](path)
            content = path.read_bytes()
            content = gzip.decompress(content) if kind == ".nii.gz" else content
            assert SECRET.encode() in content or SECRET.encode("utf-16-le") in content, path
            done += 1
    return done


def _nifti(path: Path) -> None:
    file: Any = nibabel.load(path)
    content = bytearray(file.to_bytes())
    image = type(file).from_bytes(bytes(content))
    for field in NIFTI_FIELDS:
        image.header[field] = SECRET.encode()[: image.header[field].dtype.itemsize]
    image.header["descrip"] = TEXT.encode()
    image.header.extensions.append(Nifti1Extension("comment", TEXT.encode()))
    nibabel.save(image, path)


def _nrrd(path: Path) -> None:
    first, rest = path.read_bytes().split(b"\n", 1)
    said = f"# {TEXT}\ncontent: {TEXT}\nPatientName:={TEXT}\nDICOM_0010_0010:={TEXT}\n"
    path.write_bytes(first + b"\n" + said.encode() + rest)


def _metaimage(path: Path) -> None:
    first, rest = path.read_bytes().split(b"\n", 1)
    said = f"Comment = {TEXT}\nName = {SECRET}\nPatientName = {TEXT}\nAcquisitionDate = 19310401\n"
    path.write_bytes(first + b"\n" + said.encode() + rest)


def _dicom(path: Path) -> None:
    content = pydicom.dcmread(path)
    for keyword, value in DICOM_TAGS.items():
        setattr(content, keyword, value)
    content.private_block(0x0009, "MARKED", create=True).add_new(0x01, "LO", TEXT)
    content.save_as(path)


def _png(path: Path) -> None:
    said = PngInfo()
    said.add_text("Patient", TEXT)
    said.add_itxt("Description", TEXT)
    with Image.open(path) as image:
        image.load()
    image.save(path, pnginfo=said, exif=_exif())


def _jpeg(path: Path) -> None:
    with Image.open(path) as image:
        image.load()
    image.save(path, exif=_exif(), comment=TEXT.encode(), quality=95)


def _exif() -> Image.Exif:
    exif = Image.Exif()
    for tag in (0x010E, 0x013B, 0x8298, 0x0132):  # ImageDescription, Artist, Copyright, DateTime
        exif[tag] = TEXT
    return exif


def _tiff(path: Path) -> None:
    values = tifffile.imread(path)
    said = [(tag, "s", 0, TEXT, True) for tag in ("Artist", "Copyright", "HostComputer", "DocumentName")]
    tifffile.imwrite(path, values, description=TEXT, software=TEXT, metadata=None, extratags=said)


WRITERS = {
    ".nii.gz": _nifti,
    ".nii": _nifti,
    ".nrrd": _nrrd,
    ".mha": _metaimage,
    ".mhd": _metaimage,
    ".dcm": _dicom,
    ".png": _png,
    ".jpg": _jpeg,
    ".jpeg": _jpeg,
    ".tif": _tiff,
}
