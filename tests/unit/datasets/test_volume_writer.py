"""Volumes at one spacing: what `prepare` leaves of files of several orientations and spacings."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from scipy import ndimage

from llm4seg.config import Config
from llm4seg.data.intensity import Intensity
from llm4seg.data.prepared import MANIFEST, MOST_VOXELS, Prepared
from llm4seg.datasets.resample_volume import resample_labels
from llm4seg.datasets.spacing import target_spacing
from llm4seg.datasets.volume_grid import check_memory
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import read_json, write_json
from pipelines.prepare import prepare
from tests.finished_run import raw_case, write_cases
from tests.lesion_volumes import MARGIN, VOLUMES, lesion_config, original_arrays
from tests.tiny import tiny_config

RAW = {"data.intensity": "unit"}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    config = lesion_config(tmp_path_factory.mktemp("lesions"))
    prepare(config)
    return config


@pytest.fixture(scope="module")
def data(config: Config) -> Prepared:
    return Prepared(config.paths.prepared).for_network((16, 16, 8), Intensity("unit"))


def by_hand(volume: np.ndarray, spacing: tuple[float, ...], target: tuple[float, ...]) -> np.ndarray:
    """Cropped to what is not margin, smoothed where it shrinks, and interpolated between the centers of voxels."""
    values = volume[(slice(MARGIN, -MARGIN),) * 3].astype(float)
    size = [round(side * old / new) for side, old, new in zip(values.shape, spacing, target, strict=True)]
    sigma = [max(0, (length / side - 1) / 2) for length, side in zip(values.shape, size, strict=True)]
    smooth = ndimage.gaussian_filter(values, sigma, mode="nearest")
    places = [(np.arange(side) + 0.5) * length / side - 0.5 for length, side in zip(values.shape, size, strict=True)]
    return ndimage.map_coordinates(smooth, np.meshgrid(*places, indexing="ij"), order=1, mode="nearest")


def restored(data: Prepared, case: str) -> np.ndarray:
    """The stored values of a case: `unit` undone."""
    low, high = data.cases[case].on_grid.range
    return data.resampled(case)[0][0].numpy() * (high - low) + low


def test_each_volume_has_its_own_shape_and_the_spacing_of_all(data: Prepared) -> None:
    assert data.spacing == (1.0, 1.0, 2.0)
    for number in range(8):
        case = data.cases[f"case-{number}"]
        image, labels, spacing = original_arrays(number)
        assert case.spacing == pytest.approx(spacing)
        assert case.on_grid.crop == tuple((MARGIN, side - MARGIN) for side in image.shape)
        expected = by_hand(image, spacing, data.spacing)
        assert case.on_grid.shape == expected.shape == data.resampled(case.id)[1].shape
        assert np.abs(restored(data, case.id) - expected).max() <= 0.5 + 1e-2  # int16 is rounded
        assert torch.equal(data.original(case.id)[1], torch.from_numpy(labels.copy()))


def test_labels_go_to_the_grid_and_back(data: Prepared) -> None:
    """Resampled to the original shape again they overlap with what they were."""
    for number in range(8):
        case, (_, labels, _) = data.cases[f"case-{number}"], original_arrays(number)
        inner = labels[(slice(MARGIN, -MARGIN),) * 3]
        back = resample_labels(data.resampled(case.id)[1].numpy(), inner.shape, None)
        for label in (1, 2):
            both = ((back == label) & (inner == label)).sum()
            assert 2 * both / ((back == label).sum() + (inner == label).sum()) > 0.85


def test_the_manifest_counts_and_measures_what_is_on_the_grid(data: Prepared) -> None:
    for case in data.cases.values():
        stored, labels = restored(data, case.id), data.resampled(case.id)[1]
        assert case.on_grid.mean == pytest.approx([stored.mean()], abs=1e-3)
        assert case.on_grid.std == pytest.approx([stored.std()], abs=1e-3)
        assert case.on_grid.range == pytest.approx((stored.min(), stored.max()), abs=1e-3)
        assert case.on_grid.voxels == {label: int((labels == label).sum()) for label in (1, 2)}
        assert case.grid_pixels == {"dark": case.on_grid.voxels[1], "bright": case.on_grid.voxels[2]}
        for label, places in data.labeled_voxels(case.id).items():
            assert len(torch.unique(places, dim=0)) == case.on_grid.voxels[label]
            assert (labels[tuple(places.T.long())] == label).all()


def test_auto_is_the_rule_over_all_volumes(config: Config, tmp_path: Path) -> None:
    config = config.override({"data.spacing": "auto", "paths.prepared": str(tmp_path / "auto")})
    prepare(config)
    volumes = [original_arrays(number) for number in range(8)]
    shapes = [[side - 2 * MARGIN for side in image.shape] for image, _, _ in volumes]
    expected = target_spacing([spacing for _, _, spacing in volumes], shapes)
    assert Prepared(config.paths.prepared).spacing == pytest.approx(expected, abs=1e-6)


def test_another_case_changes_none_of_the_others(config: Config, data: Prepared, tmp_path: Path) -> None:
    """Nor does a second run: equal input gives equal bytes."""
    again = config.override({"paths.prepared": str(tmp_path / "again")})
    prepare(again)
    for path in config.paths.prepared.iterdir():
        assert path.read_bytes() == (again.paths.prepared / path.name).read_bytes()


def test_an_earlier_versions_volumes_are_refused_in_a_line(config: Config, tmp_path: Path) -> None:
    """Their tiles were arranged in another way, of which the manifest says nothing."""
    manifest = read_json(config.paths.prepared / MANIFEST)
    for case in manifest["cases"]:
        del case["grid"]["dtype"], case["grid"]["block"]
    write_json(tmp_path / MANIFEST, manifest)
    with pytest.raises(
        InputError, match=rf"^{tmp_path}/{MANIFEST}: .* an earlier version's .*; run `dvc repro prepare`$"
    ):
        Prepared(tmp_path)


VOLUME_CLASSES = ("dark", "bright")


def drawn(shape: tuple[int, ...], label: int = 1, dtype: type = np.int16, **more: Any) -> Any:
    """A volume with a labeled box, and noise."""
    labels = np.zeros(shape, np.uint8)
    labels[tuple(slice(side // 4, max(1, 3 * side // 4)) for side in shape)] = label
    image = np.random.default_rng(0).integers(1, 200, shape).astype(dtype)[None]
    return raw_case(f"{shape}-{label}", labels, image, **more)


@pytest.fixture
def small(tmp_path: Path) -> Config:
    return tiny_config(tmp_path).override(VOLUMES)


def test_no_more_voxels_are_stored_than_a_patch_needs(small: Config) -> None:
    case = drawn((60, 60, 40), spacing=(1.0, 1.0, 2.0))
    data = write_cases(small, [case, drawn((20, 20, 20), 2)], VOLUME_CLASSES)
    assert data.cases[case.id].on_grid.voxels == {1: 30 * 30 * 20}
    places = data.labeled_voxels(case.id)[1]
    assert len(places) == len(torch.unique(places, dim=0)) == MOST_VOXELS
    assert places.min(dim=0).values.tolist() == [15, 15, 10]  # from everywhere
    assert places.max(dim=0).values.tolist() == [44, 44, 29]


def test_thin_and_empty_volumes_are_volumes(small: Config) -> None:
    """A single slice, and one without anything labeled, whose patches lie anywhere."""
    empty = replace(drawn((20, 24, 10)), id="empty", labels=np.zeros((20, 24, 10), np.uint8))
    cases = [drawn((20, 24, 1), spacing=(1.0, 1.0, 4.0)), drawn((20, 24, 10), 2), empty]
    data = write_cases(small.override(RAW), cases, VOLUME_CLASSES)
    assert [case.on_grid.shape for case in data.cases.values()] == [(20, 24, 2), (20, 24, 5), (20, 24, 5)]
    assert data.cases["empty"].on_grid.voxels == {}
    assert data.labeled_voxels("empty") == {}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32])
def test_values_keep_their_type(small: Config, dtype: type) -> None:
    case = drawn((20, 24, 10), dtype=dtype, spacing=(1.0, 1.0, 2.0))
    data = write_cases(small, [case, drawn((20, 24, 10), 2, dtype)], VOLUME_CLASSES)
    found = data.for_network((8, 8, 8), Intensity("unit")).resampled(case.id)[0].numpy()
    low, high = (0, 255) if dtype is np.uint8 else (case.image.min(), case.image.max())
    assert np.allclose(found, (case.image.astype(float) - low) / (high - low), atol=1e-6)


def test_a_spacing_needs_millimeters_and_memory(small: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"data\.grid: found spacing, allowed: resize, since .* no spacing in mm"):
        write_cases(small, [drawn((20, 24, 10), unit="px")], VOLUME_CLASSES)
    data = write_cases(small, [drawn((20, 24, 10)), drawn((20, 24, 12), 2)], VOLUME_CLASSES)
    case = data.cases["(20, 24, 10)-1"]
    free = psutil.virtual_memory().available
    fine = 1 / math.ceil(free ** (1 / 3))
    with pytest.raises(
        InputError, match=r"data\.spacing: found .* voxels: .* GB are needed, .* allowed: a coarser one"
    ):
        check_memory(case, (fine, fine, fine))
    check_memory(case, (1.0, 1.0, 2.0))


def test_volumes_without_labels_are_written_alike_each_time(small: Config) -> None:
    """Two empty arrays begin at one place of a shard: a file does not say which was first."""
    empty = replace(drawn((20, 24, 12)), id="empty", labels=np.zeros((20, 24, 12), np.uint8))
    cases = [drawn((20, 24, 10)), empty, drawn((20, 24, 12), 2)]
    assert len({write_cases(small, cases, VOLUME_CLASSES).sha256 for _ in range(8)}) == 1


def test_a_class_that_vanishes_everywhere_is_refused(small: Config) -> None:
    labels = np.zeros((20, 24, 10), np.uint8)
    labels[10, 12, 5] = 2
    cases = [drawn((20, 24, 10)), replace(drawn((20, 24, 10)), id="point", labels=labels)]
    message = r"class 'bright' has no pixel on the network's grid of 4 x 4 x 4 mm .* allowed: a finer data\.spacing"
    with pytest.raises(InputError, match=message):
        write_cases(small.override({"data.spacing": [4, 4, 4]}), cases, VOLUME_CLASSES)


def test_spacing_is_named_as_x_y_z(small: Config) -> None:
    config = small.override({"data.spacing": [1, 2, 3]})
    data = write_cases(config, [drawn((20, 24, 12)), drawn((20, 24, 12), 2)], VOLUME_CLASSES)
    assert data.spacing == (2.0, 1.0, 3.0)
    assert [case.on_grid.shape for case in data.cases.values()] == [(10, 24, 4)] * 2
