"""Of every reader and format: nothing that `prepare` writes or prints has what a file says beside its pixels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from llm4seg.data.prepared import Prepared
from llm4seg.datasets.image_io import read_image
from llm4seg.utils.errors import InputError
from pipelines.prepare import prepare
from tests import layouts, volume_layouts
from tests.dicom import DIRECTIONS, ct_patient, itk_image, save_series
from tests.finished_run import config_at
from tests.identifying import NAMES, identify
from tests.single_volumes import PLACES, READABLE

WRITERS: dict[str, Callable[[Path], Any]] = {**layouts.WRITERS, **volume_layouts.WRITERS}
LARGE = ("btcv", "busi", "cvc-clinicdb", "isic", "tn3k")
LESION = {"folder": {"lesion": [1]}, "btcv": {"lesion": ["spleen"]}, "acdc": {"lesion": ["right_ventricle"]}}


def assert_nobody_is_named(run: Path, said: str) -> None:
    files = [path for path in run.rglob("*") if path.is_file()]
    assert {"manifest.json", "data.png"} <= {path.name for path in files}
    for name in NAMES:
        marks = [name.lower().encode(encoding) for encoding in ("utf-8", "utf-16-le")]
        assert not [path for path in files if any(mark in path.read_bytes().lower() for mark in marks)]
        assert not [path for path in run.rglob("*") if name.lower() in path.name.lower()]
        assert name.lower() not in said.lower()


def prepared_of(root: Path, dataset: str, spatial_dims: int, classes: Any = None) -> Prepared:
    """What the stage writes of the data in `root`/raw, into `root`/run."""
    values = {"data.dataset": dataset, "data.root": str(root / "raw"), "data.classes": classes}
    sizes = {"data.spatial_dims": spatial_dims, "data.size": [16] * spatial_dims, "paths.cache": str(root / "cache")}
    config = config_at(root / "run", {**values, **sizes})
    prepare(config)
    return Prepared(config.paths.prepared)


@pytest.mark.parametrize(
    "dataset", [pytest.param(one, marks=pytest.mark.slow if one in LARGE else []) for one in WRITERS]
)
def test_published_layouts(tmp_path: Path, dataset: str, capfd: pytest.CaptureFixture[str]) -> None:
    truth = WRITERS[dataset](tmp_path / "raw")
    assert identify(tmp_path / "raw") >= len(truth)
    assert prepared_of(tmp_path, dataset, 3 if dataset in volume_layouts.WRITERS else 2).cases
    assert_nobody_is_named(tmp_path / "run", "".join(capfd.readouterr()))


@pytest.mark.parametrize(("dataset", "ending"), [(one, end) for one, ends in READABLE.items() for end in ends])
def test_volumes_of_every_format(tmp_path: Path, dataset: str, ending: str, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "raw").mkdir()
    mask = np.zeros((4, 6, 5), np.uint8)
    mask[1:3, 2:5, 1:4] = 1
    for path, values in zip(PLACES[dataset](tmp_path / "raw", ending), (mask * 100, mask), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        image = itk_image(DIRECTIONS["LAS"], values)
        save_series(path, image) if not ending else sitk.WriteImage(image, path)
    assert identify(tmp_path / "raw") >= 2
    prepared = prepared_of(tmp_path, dataset, 3, LESION.get(dataset))
    assert [case.pixels for case in prepared.cases.values()] == [{"lesion": 18}]
    assert_nobody_is_named(tmp_path / "run", "".join(capfd.readouterr()))


@pytest.mark.parametrize("ending", ["png", "jpg", "tif"])
def test_pictures_of_every_format(tmp_path: Path, ending: str, capfd: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        layouts.save(tmp_path / f"raw/images/{number}.{ending}", layouts.speckle(number, (20, 20)))
        layouts.save(tmp_path / f"raw/masks/{number}.{ending}", layouts.disk(number, (20, 20)))
    assert identify(tmp_path / "raw") == 6
    assert len(prepared_of(tmp_path, "folder", 2).cases) == 3
    assert_nobody_is_named(tmp_path / "run", "".join(capfd.readouterr()))


@pytest.mark.parametrize("ending", ["nii", "nii.gz", "nrrd", "mha", "dcm"])
def test_errors_name_the_file_alone(tmp_path: Path, ending: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Also those of the libraries, which print on their own."""
    if ending == "dcm":
        save_series(tmp_path / "a", itk_image(DIRECTIONS["LPS"]))
        (tmp_path / "a" / "1-01.dcm").rename(tmp_path / "a.dcm")
    else:
        sitk.WriteImage(itk_image(DIRECTIONS["LPS"]), tmp_path / f"a.{ending}")
    path = tmp_path / f"a.{ending}"
    identify(tmp_path)
    content, messages = path.read_bytes(), []
    places = range(0, len(content), max(5, len(content) // 150))
    for damaged in (
        *(content[:one] for one in places),
        *(content[:one] + b"\xff" + content[one + 1 :] for one in places),
    ):
        path.write_bytes(damaged)
        try:
            read_image(path)
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > 10
    assert not [one for one in (*messages, *capfd.readouterr()) if any(name in one for name in NAMES)]


def test_files_of_lung_ct(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from llm4seg.datasets.lung import read_patient

    files, _ = ct_patient(tmp_path, DIRECTIONS["LPS"])
    assert identify(tmp_path) == 5
    case = read_patient("a", "source", files)
    assert case.labels.any()
    assert not [name for name in NAMES if name in f"{case!r} {''.join(capfd.readouterr())}"]
