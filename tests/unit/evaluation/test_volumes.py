"""Scores per volume, against SciPy and SimpleITK on the volumes as they were before they were cut into slices."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
import SimpleITK
import torch
from scipy import ndimage

from llm4seg.config import Config
from llm4seg.data.prepared import Prepared
from llm4seg.data.split import Split, write_split
from llm4seg.datasets.cases import RawCase, is_blank, slices
from llm4seg.datasets.registry import open_dataset
from llm4seg.datasets.writer import write_prepared
from llm4seg.evaluation.evaluate import evaluate
from llm4seg.evaluation.results import EvaluationResult, read_volumes, write_cases
from llm4seg.evaluation.threshold_baseline import fit_intervals
from llm4seg.evaluation.volumes import not_whole
from llm4seg.objectives.metrics import METRICS
from pipelines.evaluate import write_evaluation
from tests.finished_run import ByIntensity, config_at, raw_case
from tests.finished_run import write_cases as write_data

SHAPE, SPACING, TOLERANCE = (16, 32, 9), (0.7, 0.9, 2.5), 2.0
SMALL = {"data.size": SHAPE[:2], "data.intensity": "unit", "evaluation.bootstrap": 100}
MODEL = ByIntensity([0.0, 100 / 255, 200 / 255])  # images of the size of the grid show what it predicts


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_at(tmp_path, SMALL)


def blobs(seed: int, shape: Sequence[int] = SHAPE) -> np.ndarray:
    """Labels 0 to 2, nothing in the first two and the last slice."""
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2)
    labels = np.digitize(field, np.quantile(field, [0.7, 0.88])).astype(np.uint8)
    labels[..., :2], labels[..., -1:] = 0, 0
    return labels


def volume(name: str, predicted: np.ndarray, reference: np.ndarray, group: str | None = None) -> RawCase:
    return raw_case(name, reference, predicted[None] * np.uint8(100), spacing=SPACING, group=group or name)


def sliced(*volumes: RawCase) -> list[RawCase]:
    return [one for whole in volumes for one in slices(whole) if not is_blank(one)]


def scored(config: Config, cases: Sequence[RawCase], test: Sequence[str] | None = None) -> EvaluationResult:
    """The evaluation of MODEL on `test`, or on all cases; another case is the training part."""
    other = raw_case("other", np.arange(16 * 32).reshape(SHAPE[:2]) % 3, spacing=SPACING[:2])
    data = write_data(config, [other, *cases], ("a", "b"))
    ids = tuple(one.id for one in cases) if test is None else tuple(test)
    return evaluate(MODEL, data, Split("by hand", 0, ("other",), (), ids, (), ()), config.evaluation)


def by_hand(predicted: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """The metrics of two masks, by their definitions."""
    both, either = (predicted & reference).sum(), (predicted | reference).sum()
    overlaps = {
        "dice": 2 * both / (predicted.sum() + reference.sum()),
        "iou": both / either,
        "precision": both / predicted.sum() if predicted.any() else math.nan,
        "recall": both / reference.sum() if reference.any() else math.nan,
    }
    if not (predicted.any() and reference.any()):
        return overlaps | {"hd95": float(np.linalg.norm(np.multiply(SHAPE, SPACING))), "nsd": 0.0}
    edges = [mask & ~ndimage.binary_erosion(mask) for mask in (predicted, reference)]
    far = [ndimage.distance_transform_edt(~edge, sampling=SPACING) for edge in edges]
    apart = [far[1][edges[0]], far[0][edges[1]]]
    near = sum((one <= TOLERANCE).sum() for one in apart) / sum(map(len, apart))
    return overlaps | {"hd95": max(np.percentile(one, 95) for one in apart), "nsd": near}


@pytest.mark.parametrize("order", ["one after the other", "interleaved"])
def test_several_classes_and_blank_slices_equal_scipys_on_the_whole_volumes(config: Config, order: str) -> None:
    pairs = {f"v{k}": (blobs(k), blobs(k + 10)) for k in range(3)}
    pairs["v0"][0][pairs["v0"][0] == 2] = 0  # missed
    pairs["v1"][1][pairs["v1"][1] == 2] = 0  # false
    cases = sliced(*(volume(name, *pair) for name, pair in pairs.items()))
    assert len(cases) == 3 * (SHAPE[2] - 3)
    ids = [case.id for case in cases]
    found = scored(config, cases, ids if order != "interleaved" else sorted(ids, key=lambda one: one[::-1]))
    assert [(row["case"], row["class"]) for row in found.volumes][:2] == [("v0", "a"), ("v0", "b")]
    assert {row["group"] for row in found.volumes} == set(pairs)
    for row in found.volumes:
        label = "ab".index(row["class"]) + 1
        expected = by_hand(*(labels == label for labels in pairs[row["case"]]))
        assert [row[name] for name in METRICS] == pytest.approx([expected[name] for name in METRICS], nan_ok=True)
        voxel = math.prod(SPACING)
        assert row["reference_size"] == pytest.approx((pairs[row["case"]][1] == label).sum() * voxel)
    summary = found.summary["volumes"]
    mean = np.mean([np.mean([row["dice"] for row in found.volumes if row["case"] == name]) for name in pairs])
    assert summary["dice"]["mean"] == pytest.approx(mean, abs=1e-6)
    assert (summary["cases"], summary["groups"], summary["dice"]["n"]) == (3, 3, 3)
    assert summary["classes"]["b"]["missed"] == summary["classes"]["b"]["false"] == 1
    assert summary["pooled_dice"] == found.summary["pooled_dice"]
    assert summary.keys() == found.summary.keys() - {"headline", "volumes"}
    assert found.summary["headline"] == "volumes"


def test_the_order_of_the_test_part_changes_no_case_row(config: Config) -> None:
    cases = sliced(*(volume(f"v{k}", blobs(k), blobs(k + 10)) for k in range(2)))
    mixed = sorted((case.id for case in cases), key=lambda one: one[::-1])
    found = scored(config, cases, mixed)
    assert list(dict.fromkeys(row["case"] for row in found.rows)) == mixed
    straight = {(row["case"], row["class"]): str(row) for row in scored(config, cases).rows}
    assert {(row["case"], row["class"]): str(row) for row in found.rows} == straight


def test_the_threshold_baseline_is_scored_per_volume_too(config: Config) -> None:
    cases = sliced(*(volume(f"v{k}", blobs(k), blobs(k + 10)) for k in range(2)))
    found = scored(config, cases)
    ends = [table["baseline"]["classes"]["a"] for table in (found.summary, found.summary["volumes"])]
    assert [ends[0][end] for end in ("from", "to")] == [ends[1][end] for end in ("from", "to")]
    interval = fit_intervals(Prepared(config.paths.prepared), ["other"])[0]
    for k, row in enumerate(row for row in found.volume_baseline if row["class"] == "a"):
        inside = interval.mask(torch.from_numpy(blobs(k) * np.uint8(100) / np.float32(255))).numpy()
        inside &= [not is_blank(one) for one in slices(volume("", blobs(k), blobs(k + 10)))]  # of which it sees nothing
        assert row["dice"] == pytest.approx(by_hand(inside, blobs(k + 10) == 1)["dice"])


def test_absent_in_both_has_no_value_and_absent_but_predicted_has_zero(config: Config) -> None:
    reference, predicted = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    predicted[4, 4, 4] = 1
    image = predicted * np.uint8(100)
    image[0, 0] = 30  # nearest to background, and no slice is blank
    found = scored(config, sliced(raw_case("v", reference, image[None], spacing=SPACING)))
    one, two = found.volumes
    assert (one["dice"], one["nsd"], one["fp"]) == (0, 0, 1)
    assert one["hd95"] == pytest.approx(math.dist((0, 0, 0), np.multiply(SHAPE, SPACING)))
    assert all(math.isnan(two[name]) for name in METRICS)
    assert found.summary["volumes"]["classes"]["b"]["dice"]["mean"] is None
    assert found.summary["volumes"]["dice"]["mean"] == 0


def test_a_volume_of_one_slice_has_the_scores_of_its_slice(config: Config) -> None:
    shape = (*SHAPE[:2], 1)
    predicted, reference = np.zeros((2, *shape), np.uint8)
    predicted[3:9, 4:12], reference[4:10, 4:15] = 1, 1
    found = scored(config, sliced(volume("v", predicted, reference)))
    assert [str({**row, "case": "v-000"}) for row in found.volumes] == [str(row) for row in found.rows]


def test_a_picture_beside_volumes_counts_as_a_volume_of_one_slice(config: Config) -> None:
    picture = raw_case("p", blobs(5)[..., 4], blobs(6)[None, ..., 4] * np.uint8(100), spacing=SPACING[:2])
    found = scored(config, [*sliced(volume("v", blobs(0), blobs(1))), picture])
    assert [row["case"] for row in found.volumes] == ["v", "v", "p", "p"]
    assert str(found.volumes[2:]) == str(found.rows[-2:])


@pytest.mark.parametrize("dims", [2, 3])
def test_pictures_and_volumes_of_a_3d_model_are_cases(tmp_path: Path, dims: int) -> None:
    config = config_at(tmp_path, SMALL | {"data.spatial_dims": dims, "data.size": [16] * dims})
    drawn = blobs(0) if dims == 3 else blobs(0)[..., 4]
    cases = [raw_case(name, drawn, drawn[None] * np.uint8(100)) for name in ("c", "other")]
    data = write_data(config, cases, ("a", "b"))
    found = evaluate(MODEL, data, Split("by hand", 0, ("other",), (), ("c",), (), ()), config.evaluation)
    assert (found.volumes, found.summary["volumes"], found.summary["headline"]) == ([], None, "cases")
    assert not_whole(data, ["c"]) is None


def test_where_slices_of_a_volume_are_in_other_parts_no_volume_is_scored(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = sliced(*(volume(f"v{k}", blobs(k), blobs(k + 10)) for k in range(2)))
    whole, parted = ([case.id for case in cases if case.volume == name] for name in ("v0", "v1"))
    found = scored(config, cases, [*whole, *parted[2:]])
    assert (found.volumes, found.summary["volumes"], found.summary["headline"]) == ([], None, "slices")
    data = Prepared(config.paths.prepared)
    assert not_whole(data, [*whole, *parted[2:]]) == "2 of the 6 slices of v1 are in other parts of the split"
    split = Split("by hand", 0, tuple(whole[:1]), (), (*whole[1:], *parted[2:]), (), ())
    write_split(config.paths.split, split)
    write_evaluation(config, MODEL)
    line = "1 of the 6 slices of v0 are in other parts of the split (the first of 2 such volumes)"
    assert f"evaluate: no scores per volume: {line}\n" in capsys.readouterr().out
    assert not (config.paths.evaluation / "volumes.csv").exists()


def test_a_manifest_of_an_earlier_version_has_no_volumes(config: Config) -> None:
    cases = [replace(one, volume_slices=None, slice_spacing=None) for one in sliced(volume("v", blobs(0), blobs(1)))]
    found = scored(config, cases)
    assert (found.summary["headline"], found.summary["volumes"]) == ("slices", None)
    reason = not_whole(Prepared(config.paths.prepared), [one.id for one in cases])
    assert "manifest.json does not say how many slices a volume has" in str(reason)


def test_volumes_csv_has_the_columns_of_cases_csv(config: Config, tmp_path: Path) -> None:
    found = scored(config, sliced(*(volume(f"v{k}", blobs(k), blobs(k + 10)) for k in range(2))))
    write_cases(tmp_path, found)
    table = read_volumes(tmp_path)
    assert list(table) == list(pd.read_csv(tmp_path / "cases.csv"))
    assert table["case"].tolist() == ["v0", "v0", "v1", "v1"]
    assert table["dice"].tolist() == pytest.approx([row["dice"] for row in found.volumes], rel=1e-5)
    assert table["baseline_dice"].tolist() == pytest.approx([row["dice"] for row in found.volume_baseline], rel=1e-5)


@pytest.mark.parametrize("view", ["as filed", "turned"])
def test_slices_of_files_are_scored_as_simpleitk_scores_the_files(tmp_path: Path, view: str) -> None:
    """Through NIfTI files of 0.8 x 0.8 x 3 mm, in two orientations, blank slices at the ends and amid."""
    raw = tmp_path / "data" / "raw"
    changes = {"data.dataset": "folder", "data.root": str(raw), "data.classes": {"a": [1], "b": [2]}}
    config = config_at(tmp_path, SMALL | changes | {"data.size": [16, 16]})
    affine, shape = np.diag([0.8, 0.8, 3.0, 1.0]), (16, 16, 8)
    if view == "turned":
        affine, shape = np.array([[0, 0, -0.8, 9.0], [0, 0.8, 0, -3], [3, 0, 0, 1], [0, 0, 0, 1.0]]), (8, 16, 16)
    pairs = {}
    for k, name in enumerate(("v0", "v1")):
        pairs[name] = [np.moveaxis(blobs(2 * k + one, (16, 16, 8)), -1, shape.index(8)) for one in (0, 1)]
        across = [slice(None)] * 3
        across[shape.index(8)] = slice(4, 5)
        for labels in pairs[name]:
            labels[tuple(across)] = 0
        for folder, values in (("images", pairs[name][0] * np.uint8(100)), ("masks", pairs[name][1])):
            (raw / folder).mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(values, affine), raw / folder / f"{name}.nii.gz")
    data = write_prepared(open_dataset(config.data, config.paths.cache), config.data, config.paths.prepared)
    assert {(case.volume_slices, case.slice_spacing) for case in data.cases.values()} == {(8, 3.0)}
    assert len(data.cases) == 2 * (8 - 4)
    train, test = ([case.id for case in data.cases.values() if case.volume == name] for name in ("v0", "v1"))
    split = Split("by hand", 0, tuple(train), (), tuple(test), (), ())
    found = evaluate(MODEL, data, split, config.evaluation)
    masks = []
    for values in pairs["v1"]:
        nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "one.nii.gz")
        masks.append(SimpleITK.ReadImage(tmp_path / "one.nii.gz", SimpleITK.sitkUInt8))
    for label, row in enumerate(found.volumes, start=1):
        overlaps = SimpleITK.LabelOverlapMeasuresImageFilter()
        overlaps.Execute(masks[1], masks[0])
        assert row["dice"] == pytest.approx(overlaps.GetDiceCoefficient(label))
        assert row["iou"] == pytest.approx(overlaps.GetJaccardCoefficient(label))
        shapes = SimpleITK.LabelShapeStatisticsImageFilter()
        shapes.Execute(masks[1])
        assert row["reference_size"] == pytest.approx(shapes.GetPhysicalSize(label))
        apart = [surface_distances(*(mask == label for mask in order)) for order in (masks, masks[::-1])]
        assert row["hd95"] == pytest.approx(max(np.percentile(one, 95) for one in apart), rel=1e-5)


def surface_distances(mask: SimpleITK.Image, other: SimpleITK.Image) -> np.ndarray:
    """The distances in mm of a mask's surface from another's, by SimpleITK."""
    edges = [one - SimpleITK.BinaryErode(one, (1, 1, 1), SimpleITK.sitkCross, 0, 1, True) for one in (mask, other)]
    far = SimpleITK.SignedMaurerDistanceMap(edges[1], squaredDistance=False, useImageSpacing=True)
    return np.abs(SimpleITK.GetArrayFromImage(far))[SimpleITK.GetArrayFromImage(edges[0]) > 0]


def test_metrics_json_is_strict_and_the_same_each_time(config: Config) -> None:
    scored(config, sliced(volume("v", blobs(0), blobs(1))))
    ids = tuple(Prepared(config.paths.prepared).cases)
    write_split(config.paths.split, Split("by hand", 0, ids[:1], (), ids[1:], (), ()))
    write_evaluation(config, MODEL)
    first = config.paths.metrics.read_bytes()
    json.loads(first, parse_constant=lambda name: pytest.fail(f"found {name}"))
    write_evaluation(config, MODEL)
    assert config.paths.metrics.read_bytes() == first


def test_lesions_of_slices_are_counted_in_2d_and_of_volumes_in_3d(config: Config) -> None:
    """One lesion through three slices, predicted in one of them, and a false one through two slices."""
    reference, predicted = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    reference[2:5, 2:5, 3:6] = predicted[2:4, 2:4, 4] = predicted[10:13, 10:13, 4:6] = 1
    found = scored(config, sliced(volume("v", predicted, reference)))
    names = ("lesions", "predicted_lesions", "found_lesions", "false_lesions")
    of_volume = found.summary["volumes"]["lesions"]["classes"]["a"]
    assert [of_volume[name] for name in names] == [1, 2, 1, 1]
    assert of_volume["volume_error"]["mean"] == pytest.approx((4 + 18 - 27) / 27, abs=1e-6)
    of_slices = found.summary["lesions"]["classes"]["a"]
    assert [of_slices[name] for name in names] == [3, 3, 1, 2]
