"""Volumes too large for memory are refused by their headers; these say what reading the whole file does."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from llm4seg.config import Config
from llm4seg.datasets.registry import open_dataset
from llm4seg.datasets.volume_headers import check_volumes, volume_headers
from llm4seg.utils.errors import InputError
from pipelines.prepare import prepare
from tests.dicom import DIRECTIONS
from tests.lesion_volumes import VOLUMES
from tests.single_volumes import PLACES
from tests.tiny import data_section, tiny_config
from tests.unit.datasets.test_way_back import IMAGE, MASK, save
from tests.volume_layouts import CODES
from tests.volume_layouts import save as save_volume

ENDINGS = {"folder": (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd"), "nnunet": (".nii.gz",), "decathlon": (".nii.gz",)}
ENDINGS |= {"btcv": (".nii.gz",), "acdc": (".nii",)}


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(
    ("dataset", "ending"), [(one, ending) for one, endings in ENDINGS.items() for ending in endings]
)
def test_a_header_says_what_the_whole_file_does(tmp_path: Path, dataset: str, ending: str, direction: str) -> None:
    image, mask = PLACES[dataset](tmp_path, ending)
    for path, values in ((image, IMAGE), (mask, MASK)):
        save(path, values, DIRECTIONS[direction])
    classes = {"lesion": [1]} if dataset == "folder" else None
    found = open_dataset(data_section(tmp_path, 3, dataset, classes=classes), tmp_path)
    (header,), (case,) = volume_headers(found), found.cases
    assert header.shape == case.labels.shape
    assert header.spacing == pytest.approx(case.spacing, rel=1e-6)
    assert header.source == Path(case.source).name


def test_what_has_no_header_of_its_own_is_left_to_the_reader(tmp_path: Path) -> None:
    """A folder of DICOM, and a file that is none: `prepare` names it when it reads it."""
    image, mask = PLACES["folder"](tmp_path, "")
    for path, values in ((image, IMAGE), (mask, MASK)):
        save(path, values, DIRECTIONS["LPS"])
    (tmp_path / "images" / "b.nii.gz").write_bytes(b"no volume")
    (tmp_path / "masks" / "b.nii.gz").write_bytes(b"no volume")
    dataset = open_dataset(data_section(tmp_path, 3), tmp_path)
    assert len(dataset.files) == 2
    assert list(volume_headers(dataset)) == []


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Three volumes of 64 x 32 x 16 voxels whose files end behind their headers: who reads on fails."""
    for number in range(3):
        for kind in ("images", "masks"):
            path = tmp_path / "raw" / kind / f"case-{number}.nii"
            save_volume(path, np.ones((64, 32, 16), np.uint8), CODES[number], np.diag([1.0, 2, 3, 1]))
            path.write_bytes(path.read_bytes()[:352])
    return tiny_config(tmp_path).override(VOLUMES | {"data.root": str(tmp_path / "raw")})


@pytest.mark.parametrize(
    ("spacing", "line"),
    [
        ("auto", "found auto, [2.0, 1.0, 3.0] (rows, columns, slices), at which case-0.nii has 32 x 64 x 16 voxels"),
        ([0.5, 1, 3], "found [1.0, 0.5, 3.0] (rows, columns, slices), at which case-0.nii has 64 x 128 x 16 voxels"),
    ],
)
def test_prepare_refuses_before_it_reads_a_voxel(
    config: Config, monkeypatch: pytest.MonkeyPatch, spacing: str | list[float], line: str
) -> None:
    config = config.override({"data.spacing": spacing})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=300_000))
    with pytest.raises(InputError) as error:
        prepare(config)
    voxels = 32 * 64 * 16 * (1 if spacing == "auto" else 4)
    assert str(error.value).startswith(f"data.spacing: {line}: {16 * voxels / 1e9:.1f} GB are needed, 0.0 GB are free")
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"case-0\.nii: cannot be read as an image"):
        prepare(config)


def test_images_of_one_size_take_what_their_size_takes(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    resized = config.override({"data.grid": "resize", "data.size": [16, 16, 16], "data.intensity": "unit"}).data
    check_volumes(open_dataset(resized, config.paths.cache), resized)
    with pytest.raises(InputError, match=r"case-0\.nii"):
        check_volumes(open_dataset(config.data, config.paths.cache), config.data)
