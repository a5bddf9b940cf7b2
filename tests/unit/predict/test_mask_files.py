"""Masks in every format, read back by the libraries of the formats: the labels and the image's geometry are there."""

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import tifffile
from PIL import Image

import llm4seg
from llm4seg.predict.mask_files import mask_ending, palette, write_mask, write_probabilities
from llm4seg.predict.model import SegmentationModel
from tests.dicom import DIRECTIONS, itk_image
from tests.volume_layouts import CODES, save

VALUES = np.random.default_rng(0).integers(0, 900, (6, 5, 4)).astype(np.int16)


@pytest.fixture(scope="module")
def model(slices_model: Path) -> SegmentationModel:
    return llm4seg.load(slices_model)


def mask_of(model: SegmentationModel, source: Path, target: Path) -> np.ndarray:
    """The labels in the order of the image's file; as they are written, too."""
    one = model.read(source)
    labels_S = model.predict_labels(one)
    assert labels_S.any()
    write_mask(target, one, labels_S, source)
    return one.to_file(labels_S)


@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_nifti_has_the_labels_and_the_place_of_its_image(
    model: SegmentationModel, tmp_path: Path, codes: str, ending: str
) -> None:
    source, target = tmp_path / f"a{ending}", tmp_path / f"mask{ending}"
    affine = np.diag([1.0, 1.5, 3.0, 1.0])
    affine[:3, 3] = (5, -7, 11)
    save(source, VALUES, codes, affine)
    labels = mask_of(model, source, target)
    image, mask = nibabel.load(source), nibabel.load(target)
    assert np.array_equal(np.asarray(mask.dataobj), labels)
    assert (mask.get_data_dtype(), mask.shape) == (np.uint8, image.shape)
    assert np.array_equal(mask.affine, image.affine)
    for field in ("sform_code", "qform_code", "pixdim", "srow_x", "qoffset_x", "quatern_b", "xyzt_units"):
        assert np.array_equal(mask.header[field], image.header[field]), field
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(target)), labels.T)


def test_codes_of_nifti_are_kept_and_its_texts_are_not(model: SegmentationModel, tmp_path: Path) -> None:
    """A rotated qform alone, in NIfTI-2, of big-endian numbers, with units of micrometers."""
    cosines = DIRECTIONS["oblique"] * np.sign(np.linalg.det(DIRECTIONS["oblique"]))
    affine = np.eye(4)
    affine[:3, :3] = cosines * (900.0, 1100.0, 3000.0)
    header = nibabel.Nifti2Header(endianness=">")
    image = nibabel.Nifti2Image(VALUES, None, header)
    image.set_qform(affine, code=3)
    image.header.set_xyzt_units("micron")
    image.header["descrip"], image.header["aux_file"] = b"Zweistein", b"Zweistein"
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"Zweistein"))
    nibabel.save(image, tmp_path / "a.nii.gz")
    labels = mask_of(model, tmp_path / "a.nii.gz", tmp_path / "m.nii.gz")
    mask = nibabel.load(tmp_path / "m.nii.gz")
    assert (type(mask), int(mask.header["qform_code"]), int(mask.header["sform_code"])) == (nibabel.Nifti2Image, 3, 0)
    np.testing.assert_array_equal(mask.affine, nibabel.load(tmp_path / "a.nii.gz").affine)
    assert (mask.header.get_xyzt_units()[0], len(mask.header.extensions)) == ("micron", 0)
    assert np.array_equal(np.asarray(mask.dataobj), labels)
    content = gzip.decompress((tmp_path / "m.nii.gz").read_bytes())
    assert b"Zweistein" not in content
    assert b"Zweistein" in gzip.decompress((tmp_path / "a.nii.gz").read_bytes())


@pytest.mark.parametrize("direction", ["LPS", "RAS", "coronal", "oblique"])
@pytest.mark.parametrize(("ending", "written"), [(".nrrd", ".nrrd"), (".mha", ".mha"), (".mhd", ".mha")])
def test_nrrd_and_metaimage(
    model: SegmentationModel, tmp_path: Path, direction: str, ending: str, written: str
) -> None:
    source = tmp_path / f"a{ending}"
    sitk.WriteImage(itk_image(DIRECTIONS[direction]), source)
    assert mask_ending(source, False, None) == written
    labels = mask_of(model, source, tmp_path / f"mask{written}")
    image, mask = sitk.ReadImage(source), sitk.ReadImage(tmp_path / f"mask{written}")
    assert np.array_equal(sitk.GetArrayFromImage(mask), labels.T)
    assert mask.GetPixelID() == sitk.sitkUInt8
    sitk.WriteImage(image, tmp_path / f"by ITK{written}")
    copy = sitk.ReadImage(tmp_path / f"by ITK{written}")
    for place in ("GetSpacing", "GetOrigin", "GetDirection"):
        found = getattr(mask, place)()
        assert found == getattr(copy, place)()  # to the bit what SimpleITK writes of the image itself
        if written == ".mha":
            assert found == getattr(image, place)()
        else:  # stored as products of spacing and direction
            np.testing.assert_allclose(found, getattr(image, place)(), rtol=1e-15, atol=1e-15)


LENGTHS = {"um": 1e-3, "cm": 10.0, "m": 1000.0}
OF_MASKS = [("a.mha", "m.mha", "um"), ("a.mha", "m.mha", "cm"), ("a.nrrd", "m.mha", "um"), ("a.nrrd", "m.mha", "m")]
OF_MASKS += [("a.nrrd", "m.nrrd", unit) for unit in LENGTHS]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(("source", "target", "unit"), OF_MASKS)
def test_nrrd_and_metaimage_keep_the_unit_of_their_sizes(
    model: SegmentationModel, tmp_path: Path, dims: int, source: str, target: str, unit: str
) -> None:
    """Numbers as in the image, for programs that know no units; mm where MetaImage does not know the unit."""
    length = LENGTHS[unit]
    image = sitk.GetImageFromArray(VALUES if dims == 3 else VALUES[0])
    spacing, origin = (0.7, 1.1, 3.0)[:dims], (5.0, 2.0, -4.0)[:dims]
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    sitk.WriteImage(image, tmp_path / source)
    place = b"space directions:" if source == "a.nrrd" else b"ElementSpacing"
    line = (
        b"space units:" + b' "%b"' % unit.encode() * dims if source == "a.nrrd" else f"DistanceUnits = {unit}".encode()
    )
    content = (tmp_path / source).read_bytes()
    assert content.count(place) == 1
    (tmp_path / source).write_bytes(content.replace(place, line + b"\n" + place))

    labels = mask_of(model, tmp_path / source, tmp_path / target)
    mask = sitk.ReadImage(tmp_path / target)
    assert np.array_equal(sitk.GetArrayFromImage(mask), labels.T)
    known = (target, unit) != ("m.mha", "m")
    assert mask.GetSpacing() == pytest.approx([size * (1 if known else length) for size in spacing])
    assert mask.GetOrigin() == pytest.approx([part * (1 if known else length) for part in origin])
    header = (tmp_path / target).read_bytes()[:600]
    if target == "m.mha":
        assert (b"DistanceUnits = " + unit.encode() in header) == known
    else:
        assert header.count(line + b"\n") == 1
    found, expected = (model.read(tmp_path / name) for name in (target, source))
    assert found.spacing == pytest.approx(expected.spacing)
    assert expected.spacing == pytest.approx([size * length for size in np.array(spacing)[[1, 0, 2][:dims]]])


@pytest.mark.parametrize("direction", ["RAS", "sagittal", "oblique"])
@pytest.mark.parametrize(("source", "target"), [("a.nrrd", "m.nii.gz"), ("a.nii.gz", "m.mha")])
def test_another_format_lies_at_the_same_place(
    model: SegmentationModel, tmp_path: Path, direction: str, source: str, target: str
) -> None:
    """By SimpleITK, which reads both: the same point of the patient is in the same voxel."""
    turn = DIRECTIONS[direction]
    sitk.WriteImage(itk_image(turn), tmp_path / source)
    labels = mask_of(model, tmp_path / source, tmp_path / target)
    image, mask = sitk.ReadImage(tmp_path / source), sitk.ReadImage(tmp_path / target)
    assert np.array_equal(sitk.GetArrayFromImage(mask), labels.T)
    for index in ((0, 0, 0), (4, 5, 3)):
        expected = image.TransformIndexToPhysicalPoint(index)
        assert mask.TransformIndexToPhysicalPoint(index) == pytest.approx(expected, abs=1e-3)


def test_pictures(pictures_model: Path, tmp_path: Path) -> None:
    model = llm4seg.load(pictures_model)
    image = np.array(Image.open(pictures_model.parents[1] / "raw" / "images" / "0.png"))
    for ending in (".png", ".jpg", ".bmp", ".tif"):
        source = tmp_path / f"a{ending}"
        Image.fromarray(image).save(source)
        target = tmp_path / f"m{mask_ending(source, False, None)}"
        labels = mask_of(model, source, target)
        assert np.array_equal(labels, model.predict(source))
        written = Image.open(target)
        assert (written.mode, written.size) == ("P", (36, 30))
        assert np.array_equal(np.array(written), labels)
        colored = np.array(written.convert("RGB"))
        assert np.array_equal(colored[labels == 1], np.broadcast_to(palette(1)[1], (int(labels.sum()), 3)))
        assert not colored[labels == 0].any()
    one = model.read(tmp_path / "a.png", spacing=(0.5, 0.25))
    labels_S = model.predict_labels(one)
    write_mask(tmp_path / "m.nii.gz", one, labels_S, tmp_path / "a.png")
    write_mask(tmp_path / "m.mha", one, labels_S, tmp_path / "a.png")
    nifti, itk = sitk.ReadImage(tmp_path / "m.nii.gz"), sitk.ReadImage(tmp_path / "m.mha")
    assert np.array_equal(sitk.GetArrayFromImage(itk), labels_S)  # rows by columns
    assert (itk.GetSpacing(), itk.GetDirection()) == ((0.25, 0.5), (1.0, 0.0, 0.0, 1.0))
    assert np.array_equal(sitk.GetArrayFromImage(nifti), labels_S.T)
    assert nifti.GetSpacing()[:2] == pytest.approx((0.5, 0.25))


def test_pages_of_a_tiff_and_slices_as_png(model: SegmentationModel, pictures_model: Path, tmp_path: Path) -> None:
    pages = np.random.default_rng(0).integers(0, 255, (3, 30, 36)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pages, photometric="minisblack")
    labels = mask_of(llm4seg.load(pictures_model), tmp_path / "a.tif", tmp_path / "m.tif")
    assert np.array_equal(tifffile.imread(tmp_path / "m.tif"), np.moveaxis(labels, -1, 0))
    save(tmp_path / "v.nii.gz", VALUES, "RAS", np.eye(4))
    with pytest.raises(llm4seg.InputError, match=r"v.nii.gz: is a volume, allowed as PNG: images of one slice"):
        mask_of(model, tmp_path / "v.nii.gz", tmp_path / "v.png")
    save(tmp_path / "s.nii.gz", VALUES[..., :1], "RAS", np.eye(4))
    labels = mask_of(model, tmp_path / "s.nii.gz", tmp_path / "s.png")
    upright = labels[..., 0].T[::-1]  # of an image RAS: rows to the back, columns to the right
    assert np.array_equal(np.array(Image.open(tmp_path / "s.png")), upright)


def test_probabilities_are_stored_to_a_65535th(model: SegmentationModel, tmp_path: Path) -> None:
    save(tmp_path / "a.nii.gz", VALUES, "LPS", np.diag([1.0, 1.5, 3.0, 1.0]))
    one = model.read(tmp_path / "a.nii.gz")
    for values in model.probabilities(one):
        write_probabilities(tmp_path / "p.nii.gz", one, values, tmp_path / "a.nii.gz")
        read = nibabel.load(tmp_path / "p.nii.gz")
        np.testing.assert_allclose(read.get_fdata(), values, atol=0.5001 / 65535)
        assert (read.get_data_dtype(), np.ptp(values) > 0.1) == (np.uint16, True)
        by_itk = sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "p.nii.gz"))
        np.testing.assert_allclose(by_itk.T, values, atol=0.51 / 65535)
