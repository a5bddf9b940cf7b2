"""What a model cannot read: one line that names it, what was found and what is allowed."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

import llm4seg
from llm4seg.config import Config
from llm4seg.utils.files import read_json, write_json
from tests.lesion_volumes import VOLUMES, prepare_lesions
from tests.saved_model import save_random_model


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A model of volumes at a spacing, without an LLM."""
    root = tmp_path_factory.mktemp("bad")
    config = prepare_lesions(root, {"model.bottleneck": "identity", "search.trials": 0})
    save_random_model(config)
    return config


@pytest.fixture(scope="module")
def model(config: Config) -> llm4seg.SegmentationModel:
    return llm4seg.load(config.paths.model)


VOLUME = np.arange(600, dtype=np.int16).reshape(10, 6, 10)


def nifti(path: Path, values: np.ndarray) -> Path:
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
    return path


def files(folder: Path) -> dict[str, Any]:
    """Files that cannot be read, by what the message says."""
    (folder / "text.nii.gz").write_text("no image")
    (folder / "text.txt").write_text("no image")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "flat.png")
    return {
        "no.nii.gz: no such file": folder / "no.nii.gz",
        "text.nii.gz: cannot be read as an image: damaged": folder / "text.nii.gz",
        "text.txt: not a known image format; allowed: ": folder / "text.txt",
        "flat.png: is 2-D, allowed: volumes, which the model in ": folder / "flat.png",
        "flat.nii: is 2-D, allowed: volumes": nifti(folder / "flat.nii", np.zeros((8, 8), np.int16)),
        "four.nii: found 4 channels, allowed: 1, those of the model in ": nifti(
            folder / "four.nii", np.ones((8, 8, 8, 4), np.int16)
        ),
        "nan.nii: the image has 1 NaN or infinite values": nifti(
            folder / "nan.nii", np.where(VOLUME == 5, np.nan, VOLUME)
        ),
        "image: found list, allowed: paths of files, an array or a tensor": [],
    }


def test_files(model: llm4seg.SegmentationModel, tmp_path: Path) -> None:
    for message, image in files(tmp_path).items():
        with pytest.raises(llm4seg.InputError, match=message) as raised:
            model.predict(image)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("image", "spacing", "message"),
    [
        (VOLUME, None, r"image: has no spacing, but the model in .* reads volumes at 1 x 1 x 2 mm; give `spacing`"),
        (VOLUME, (1, 1), r"spacing: found \[1, 1\], allowed: 3 numbers above 0, in mm along the image's axes"),
        (VOLUME, (1, 0, 1), r"spacing: found \[1, 0, 1\], allowed: 3 numbers above 0"),
        (VOLUME[0], (1, 1, 1), r"image: found the shape \(6, 10\), allowed: .* reads \(1, rows, columns, slices\)"),
        (VOLUME[:0], (1, 1, 1), r"image: found the shape \(0, 6, 10\), allowed"),
        (np.stack([VOLUME, VOLUME]), (1, 1, 1), r"image: found 2 channels, allowed: 1"),
        (
            np.where(VOLUME == 5, np.inf, VOLUME).astype(np.float32),
            (1, 1, 1),
            r"image: the image has 1 NaN or infinite values",
        ),
        (VOLUME.astype(complex), (1, 1, 1), r"image: found values of type complex128, allowed"),
        (VOLUME, (1e5, 1e5, 1e5), r"data\.spacing: found .* GB are needed"),
    ],
)
def test_arrays(model: llm4seg.SegmentationModel, image: np.ndarray, spacing: Any, message: str) -> None:
    with pytest.raises(llm4seg.InputError, match=message):
        model.predict(image, spacing)


def test_a_file_has_one_spacing(model: llm4seg.SegmentationModel, tmp_path: Path) -> None:
    path = nifti(tmp_path / "a.nii", VOLUME)
    with pytest.raises(llm4seg.InputError, match=r"a\.nii: found a spacing of its own, and one that is given"):
        model.predict(path, (1, 1, 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float16"}, r"dtype: found float16, allowed: float32 or bfloat16"),
        ({"device": "tpu"}, r"device: found 'tpu', allowed: cpu, cuda or cuda:N"),
        ({"overlap": 1}, r"overlap: found 1, allowed: 0 to below 1"),
    ],
)
def test_options(config: Config, options: dict[str, Any], message: str) -> None:
    with pytest.raises(llm4seg.InputError, match=message):
        llm4seg.load(config.paths.model, **options)


def test_folders(config: Config, tmp_path: Path) -> None:
    for wrong in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(llm4seg.InputError, match=r"found no model\.json, allowed: the folder of a trained model"):
            llm4seg.load(wrong)
    with pytest.raises(llm4seg.InputError, match="model: found none, allowed: one folder or more"):
        llm4seg.load([])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("classes", ["bright", "dark"], "classes bright, dark, allowed: dark, bright"),
        ("channels", 2, "channels 2, allowed: 1"),
        ("spatial_dims", 2, "spatial dimensions 2, allowed: 3"),
        ("view", "coronal", "view coronal, allowed: axial"),
    ],
)
def test_models_of_other_data_make_no_ensemble(
    config: Config, tmp_path: Path, name: str, value: Any, message: str
) -> None:
    described = read_json(config.paths.model / "model.json")
    write_json(tmp_path / "other" / "model.json", described | {"data": described["data"] | {name: value}})
    with pytest.raises(llm4seg.InputError, match=rf"other: found {message}, as of the model in "):
        llm4seg.load([config.paths.model, tmp_path / "other"])


def test_a_model_of_an_earlier_version_reads_arrays_but_not_volumes_of_files(config: Config, tmp_path: Path) -> None:
    described = read_json(config.paths.model / "model.json")
    for name in ("view", "grid", "unit", "paired", "left_right_axis", "cropped"):
        del described["data"][name]
    write_json(tmp_path / "old" / "model.json", described)
    (tmp_path / "old" / "weights.safetensors").symlink_to(config.paths.model / "weights.safetensors")
    old, new = llm4seg.load(tmp_path / "old"), llm4seg.load(config.paths.model)
    with pytest.raises(
        llm4seg.InputError, match=r"does not say how volumes lie .*; train it again, or give the volume"
    ):
        old.predict(nifti(tmp_path / "a.nii", VOLUME))
    assert np.array_equal(old.predict(VOLUME, (1, 1, 2)), new.predict(VOLUME, (1, 1, 2)))
    assert VOLUMES["data.spatial_dims"] == 3
