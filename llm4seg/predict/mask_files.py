"""Masks and probabilities on disk, each in a format of images, where the image's own file has its pixels."""

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llm4seg.datasets.itk_headers import LENGTHS, millimeters
from llm4seg.datasets.itk_io import TO_RAS
from llm4seg.predict.input_image import InputImage
from llm4seg.utils.drawing import colors
from llm4seg.utils.errors import InputError
from llm4seg.utils.extras import require
from llm4seg.utils.files import replacing, replacing_by_name

ENDINGS = {"nifti": ".nii.gz", "nrrd": ".nrrd", "mha": ".mha", "png": ".png", "dicom-seg": ".dcm"}  # of each --format
NIFTI, ITK, PICTURES = (".nii", ".nii.gz"), (".nrrd", ".nhdr", ".mha", ".mhd"), (".png", ".jpg", ".jpeg", ".bmp")
OWN = {".nhdr": ".nrrd", ".mhd": ".mha", ".tiff": ".tif", **dict.fromkeys(PICTURES, ".png")}
PLACE_FIELDS = (
    *("xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)
META_UNITS = ("mm", "um", "cm")  # that MetaImage knows
STEPS = 65535  # of a stored probability: 16 bits, since NIfTI has no floating point of 16 bits


def ending_of(path: Path) -> str:
    """A file's ending in lower case, `.nii.gz` as one."""
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def mask_ending(source: Path, dicom: bool, wanted: str | None) -> str:
    """The ending of a mask's file: of the `wanted` format, else of the image's own; PNG for JPG and BMP.

    Raises InputError where a mask of another format than DICOM is wanted as DICOM.
    """
    own = ".dcm" if dicom else OWN.get(ending_of(source), ending_of(source))
    if wanted == "dicom-seg" and not dicom:
        raise InputError(f"{source}: is no DICOM, whose series a DICOM-SEG refers to; allowed: another --format")
    if wanted is None or (wanted == "nifti" and own in NIFTI):
        return own
    return ENDINGS[wanted]


def write_mask(target: Path, one: InputImage, labels_S: np.ndarray, source: Path) -> None:
    """Write labels uint8, in the order of the image's array, in the format that `target` is named after; atomically.

    `source`: the image's file, whose geometry is copied where both have the same format. Raises InputError for a
    volume as PNG.
    """
    kind = ending_of(target)
    if kind in NIFTI:
        write_nifti(target, one, one.to_file(labels_S), source)
    elif kind in ITK:
        _write_itk(target, one, labels_S, source)
    else:
        _write_picture(target, one, labels_S)


def write_probabilities(target: Path, one: InputImage, values: np.ndarray, source: Path) -> None:
    """Write probabilities, in the order of the image's file, as NIfTI of 16 bits with a scale, which readers apply."""
    stored = np.rint(values * STEPS).astype(np.uint16)
    write_nifti(target, one, stored, source, slope=1 / STEPS)


def write_nifti(target: Path, one: InputImage, values: np.ndarray, source: Path, slope: float = 1.0) -> None:
    """Write values in the order of the image's file; where that is NIfTI, with all that its header says of place.

    Nothing else of the header is copied: its texts may name a patient.
    """
    import nibabel

    if ending_of(source) in NIFTI:
        original = nibabel.load(source)
        kind, header = type(original), type(original).header_class(endianness=original.header.endianness)
        _set_shape(header, values)
        for field in PLACE_FIELDS:
            header[field] = original.header[field]
        header["pixdim"][: 1 + values.ndim] = original.header["pixdim"][: 1 + values.ndim]
    else:
        assert one.geometry is not None
        kind, header = nibabel.Nifti1Image, nibabel.Nifti1Header()
        _set_shape(header, values)
        header.set_qform(np.array(one.geometry.affine), code=1, strip_shears=True)
        header.set_sform(np.array(one.geometry.affine), code=1)
        header.set_xyzt_units("unknown" if one.spacing is None else "mm")
    file = kind(values, None, header)
    file.header.set_slope_inter(slope, 0)
    content = _nifti_bytes(file, values)
    with replacing(target) as partial:
        partial.write_bytes(gzip.compress(content, 6, mtime=0) if ending_of(target) == ".nii.gz" else content)


def _set_shape(header: Any, values: np.ndarray) -> None:
    header.set_data_dtype(values.dtype)
    header.set_data_shape(values.shape)


def _nifti_bytes(file: Any, values: np.ndarray) -> bytes:
    """A NIfTI file of raw values: nibabel's own writer would divide them by the scale that the header has."""
    header = file.header
    offset = int(header.single_vox_offset)
    header["vox_offset"], header["magic"] = offset, header.single_magic
    head = bytes(header.binaryblock).ljust(offset, b"\0")
    return head + values.astype(values.dtype.newbyteorder(header.endianness)).tobytes(order="F")


def _write_itk(target: Path, one: InputImage, labels_S: np.ndarray, source: Path) -> None:
    require("SimpleITK", "NRRD or MetaImage")
    import SimpleITK as sitk  # noqa: N813

    assert one.geometry is not None
    affine, kind = np.array(one.geometry.affine), ending_of(source)
    labels = one.to_file(labels_S)
    if is_picture(source):  # ITK's x runs along the columns, y along the rows
        labels = labels.swapaxes(0, 1)
        affine[:, [0, 1]] = affine[:, [1, 0]]
    elif labels.ndim == 2 and kind not in ITK:
        labels = labels[..., None]
    image = sitk.GetImageFromArray(labels.T)
    unit = _itk_unit(source, target)
    if unit:
        spacing, origin, direction = _itk_place(sitk, source, labels.ndim)
        if unit != "mm":
            image.SetMetaData("ITK_VoxelUnits", unit)  # which ITK writes into MetaImage alone
    else:
        dims, affine = labels.ndim, TO_RAS @ affine
        sizes = np.linalg.norm(affine[:3, :3], axis=0)
        spacing, origin = sizes[:dims], affine[:dims, 3]
        direction = (affine[:3, :3] / sizes)[:dims, :dims].ravel()
    image.SetSpacing([float(size) for size in spacing])
    image.SetOrigin([float(place) for place in origin])
    image.SetDirection([float(cosine) for cosine in direction])
    with replacing_by_name(target) as partial:
        try:
            sitk.WriteImage(image, partial, useCompression=True)
        except RuntimeError:
            raise OSError(f"{target}: SimpleITK cannot write it; is the disk full?") from None
        if unit not in (None, "mm") and ending_of(target) == ".nrrd":
            _name_nrrd_unit(Path(partial), str(unit), labels.ndim)


def _itk_unit(source: Path, target: Path) -> str | None:
    """The unit of an NRRD's or MetaImage's sizes, in which its mask has them, too; `mm` where it says none.

    None: `source` has another format, or a unit that `target`'s format does not know: sizes are converted to mm.
    """
    if ending_of(source) not in ITK:
        return None
    known = millimeters(source) or 1.0
    (unit,) = (name for name, length in LENGTHS.items() if length == known)
    return unit if ending_of(target) == ".nrrd" or unit in META_UNITS else None


def _name_nrrd_unit(path: Path, unit: str, dims: int) -> None:
    """Insert the line of the unit into the header that ITK has written, which cannot write it."""
    units = " ".join([f'"{unit}"'] * dims)
    line, place = f"space units: {units}\n".encode(), b"space directions:"
    head, found, rest = path.read_bytes().partition(place)
    assert found
    path.write_bytes(head + line + place + rest)


def _itk_place(sitk: Any, source: Path, dims: int) -> tuple[Sequence[float], Sequence[float], Sequence[float]]:
    """Spacing, origin and direction of a file, of four axes those of the first three.

    To the bit, and so is a MetaImage of them. NRRD stores products of spacing and direction, which readers take apart:
    its last bit may differ, as it does after SimpleITK's own ReadImage and WriteImage.
    """
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(source))
    reader.ReadImageInformation()
    count = reader.GetDimension()
    direction = np.array(reader.GetDirection()).reshape(count, count)[:dims, :dims].ravel()
    return reader.GetSpacing()[:dims], reader.GetOrigin()[:dims], [*direction]


def is_picture(source: Path) -> bool:
    """Whether a file's axes are rows and columns."""
    return ending_of(source) in (*PICTURES, ".tif", ".tiff")


def palette(labels: int) -> np.ndarray:
    """Colors of labels, uint8 (256, 3): background is black, labels have the colors of the overlays."""
    table = np.zeros((256, 3), np.uint8)
    for label, hue in enumerate(colors(labels), start=1):
        table[label] = [int(hue[place : place + 2], 16) for place in (1, 3, 5)]
    return table


def _write_picture(target: Path, one: InputImage, labels_S: np.ndarray) -> None:
    """Indices of colors, rows by columns as a person sees them; a TIFF has a page a slice."""
    table = palette(255)
    if ending_of(target) == ".tif":
        import tifffile

        pages = np.moveaxis(labels_S, -1, 0) if labels_S.ndim == 3 else labels_S
        colormap = table.T.astype(np.uint16) * 257
        with replacing(target) as partial:
            tifffile.imwrite(partial, pages, photometric="palette", colormap=colormap, compression="zlib")
        return
    if labels_S.ndim == 3 and labels_S.shape[-1] > 1:
        raise InputError(f"{one.source}: is a volume, allowed as PNG: images of one slice; choose another --format")
    from PIL import Image

    image = Image.fromarray(labels_S if labels_S.ndim == 2 else labels_S[..., 0], "P")
    image.putpalette(table.ravel().tolist())
    with replacing(target) as partial:
        image.save(partial, format="png")
