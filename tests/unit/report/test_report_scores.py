"""The report's scores, and what it says where inputs are missing, broken or of an earlier version."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from llm4seg.config import Config
from llm4seg.data.split import read_split, write_split
from llm4seg.datasets.cases import slices
from llm4seg.report.wording import DASH
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import read_json, remove, write_text
from pipelines.evaluate import write_evaluation
from pipelines.report import report
from pipelines.split import split
from pipelines.summary import summary, table
from tests import finished_run as finished
from tests.finished_run import ByIntensity, finished_run, raw_case
from tests.report_page import change_json, page, words


def test_says_by_which_statistics_intensities_were_normalized(copy: Config) -> None:
    def with_ct(model: Any) -> None:
        one = {"low": -834.0, "high": 151.4, "mean": -52.6, "std": 227.9}
        model["data"]["normalization"] = {"kind": "ct", "window": None, "foreground": [one]}

    assert "Intensities" not in words(page(copy))
    change_json(copy.paths.model / "model.json", with_ct)
    text = words(page(copy))
    assert "Intensities percentiles 0.5 and 99.5, to which they are clipped: -834 and 151; mean -53 and" in text
    assert "standard deviation 228, which become 0 and 1" in text


def test_one_test_case_is_no_mean_over_cases(copy: Config) -> None:
    change_json(copy.paths.metrics, lambda metrics: metrics.update(cases=1))
    for role in ("median", "worst"):
        (copy.paths.evaluation / "overlays" / f"{role}.png").unlink()
    table = copy.paths.evaluation / "cases.csv"
    cases = pd.read_csv(table)
    cases[cases["case"] == cases["case"][0]].to_csv(table, index=False)
    text = words(page(copy))
    assert "From case to case" not in text
    assert 'href="#cases"' not in page(copy)
    assert "on one test case. The best intensity threshold reaches" in text
    assert "A case Filled: labels" in text


def test_distances_without_a_pixel_size_are_in_pixels(copy: Config) -> None:
    known, hd95 = words(page(copy)), read_json(copy.paths.metrics)["hd95"]["mean"]
    assert f"{hd95:.1f} mm mean HD95" in known
    assert "within 2 mm of each other" in known
    assert "Spacing 1.00 \u00d7 1.00 mm Grid" in known
    cases = copy.paths.prepared / "manifest.json"
    change_json(copy.paths.metrics, lambda metrics: metrics.update(distance_unit="mm or px"))
    change_json(cases, lambda manifest: manifest["cases"][0].update(unit="px"))
    mixed = words(page(copy))
    assert f"{hd95:.1f} mm or px mean HD95" in mixed
    assert "Spacing 1.00 \u00d7 1.00 mm, or not known: distances are in px Grid" in mixed
    change_json(copy.paths.metrics, lambda metrics: metrics.update(distance_unit="px"))
    change_json(cases, lambda manifest: [case.update(unit="px") for case in manifest["cases"]])
    unknown = words(page(copy))
    assert " mm " not in unknown
    assert "HD95 is in px" in unknown
    assert table(read_json(copy.paths.metrics)).columns[4].header == "HD95 px"


def test_metrics_of_earlier_versions_are_in_mm(copy: Config) -> None:
    change_json(copy.paths.metrics, lambda metrics: metrics.pop("distance_unit"))
    assert "HD95 is in mm; NSD is the share of the surfaces within 2 mm of each other" in words(page(copy))
    assert table(read_json(copy.paths.metrics)).columns[4].header == "HD95 mm"


def test_lesions_are_in_a_table_of_their_own(run: Config) -> None:
    lesions = read_json(run.paths.metrics)["lesions"]
    text = words(run.paths.report.read_text(encoding="utf-8"))
    assert "Lesion by lesion, in cases A lesion is a connected piece of a class" in text
    for name, row in (*lesions["classes"].items(), ("all", lesions)):
        share, false = row["sensitivity"]["mean"], row["false_per_case"]["mean"]
        found = f"{name} {row['lesions']} {row['found_lesions']} {share:.2f} "
        assert re.search(f"{found}[^a-z]*{row['false_lesions']} {false:.2f} ", text), name


def test_metrics_of_earlier_versions_have_no_lesions(copy: Config) -> None:
    change_json(copy.paths.metrics, lambda metrics: metrics.pop("lesions"))
    table = pd.read_csv(copy.paths.evaluation / "cases.csv")
    earlier = table.drop(columns=[name for name in table if "lesions" in name or name == "volume_error"])
    assert len(earlier.columns) == len(table.columns) - 5
    earlier.to_csv(copy.paths.evaluation / "cases.csv", index=False)
    text = words(page(copy))
    assert "Lesion by lesion" not in text
    assert "Result for each class" in text


@pytest.mark.parametrize(
    "missing",
    ["model.json", "history.csv", "metrics.json", "cases.csv", "split.json", "manifest.json", "data.png", "best.json"],
)
def test_a_missing_input_is_named(copy: Config, missing: str) -> None:
    (path,) = copy.paths.report.parent.parent.rglob(missing)
    path.unlink()
    remove(copy.paths.report)
    with pytest.raises(InputError, match=re.escape(f"{path}: no such file; run the stage that makes it")):
        report(copy)
    assert not copy.paths.report.exists()


def test_missing_pictures_are_named(copy: Config) -> None:
    shutil.rmtree(copy.paths.evaluation / "overlays")
    with pytest.raises(InputError, match=r"overlays: found no picture"):
        report(copy)


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "not a CSV table"), ("epoch,lr\n1,2\n", "no column 'train_loss'"), ("\x00\n", "history.csv")],
)
def test_a_broken_table_is_named(copy: Config, content: str, message: str) -> None:
    write_text(copy.paths.history, content)
    with pytest.raises(InputError, match=message):
        report(copy)


def test_a_table_without_rows_is_named(copy: Config) -> None:
    write_text(copy.paths.history, "epoch,train_loss,val_loss,val_dice,lr\n")
    with pytest.raises(InputError, match="found no row"):
        report(copy)


def test_scores_per_volume_are_the_headline_where_there_are_any(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = finished_run(tmp_path)
    random, size = np.random.default_rng(0), {"data.size": [16, 16], "data.intensity": "unit"}
    small = finished.config_at(tmp_path, size | {"evaluation.bootstrap": 100, "split.rule": "group"})
    drawn = random.integers(0, 3, (6, 20, 20, 5))
    volumes = [raw_case(f"v{k}", labels, random.integers(0, 255, (1, 20, 20, 5))) for k, labels in enumerate(drawn)]
    finished.write_cases(small, [one for whole in volumes for one in slices(whole)], ("lesion 1", "lesion 2"))
    split(small)
    write_evaluation(small, ByIntensity([0.0, 0.4, 0.8]))
    report(config)
    metrics, text = read_json(config.paths.metrics), words(config.paths.report.read_text(encoding="utf-8"))
    dice, by_slice = metrics["volumes"]["dice"]["mean"], metrics["dice"]["mean"]
    count = metrics["volumes"]["cases"]
    assert (metrics["cases"], count) == (5, 1)
    assert f"reaches a mean Dice of {dice:.2f} on one test volume. The best" in text
    assert f"{metrics['volumes']['hd95']['mean']:.1f} mm mean HD95" in text
    assert text.index("Means over the volumes in which") < text.index("Means over the slices in which")
    assert f"mean {5 * count} {DASH} {DASH} {by_slice:.2f}" in text
    assert f"The {5 * count} slices come from {count} group" in text
    assert "No scores per volume" not in text
    html = config.paths.report.read_text(encoding="utf-8")
    assert html.index("the Dice of every test volume") < html.index("the Dice of every test case")
    assert {"cases.svg", "volumes.svg"} < {path.name for path in config.paths.pictures.iterdir()}
    monkeypatch.chdir(tmp_path)
    summary(config)
    shown = capsys.readouterr().out
    assert shown.index(f"{count} test volumes") < shown.index(f"{5 * count} test slices")
    whole = read_split(config.paths.split)
    write_split(config.paths.split, replace(whole, train=whole.train + whole.test[:1], test=whole.test[1:]))
    change_json(config.paths.metrics, lambda values: values.update(volumes=None, headline="slices"))
    report(config)
    text = words(config.paths.report.read_text(encoding="utf-8"))
    assert f"reaches a mean Dice of {by_slice:.2f}" in text
    assert re.search(r"No scores per volume: 1 of the 5 slices of v\d are in other parts of the split\.", text)
    assert "Means over the volumes" not in text


def test_volumes_and_many_classes(tmp_path: Path) -> None:
    changes = {
        "data.spatial_dims": 3,
        "data.size": [16, 16, 16],
        "data.phantom.size": [20, 24, 16],
        "data.phantom.classes": 9,
        "data.phantom.cases": 12,
        "data.phantom.patients": 12,
    }
    text = words(page(finished_run(tmp_path, changes)))
    assert "20 \u00d7 24 \u00d7 16 voxels" in text
    assert "lesion 9" in text


def test_a_single_test_case_has_no_interval(copy: Config) -> None:
    def without_interval(values: Any) -> None:
        for one in values.values():
            if isinstance(one, dict):
                without_interval(one)
        values |= {"std": None, "low": None, "high": None} if "low" in values else {}

    change_json(copy.paths.metrics, without_interval)
    metrics = read_json(copy.paths.metrics)
    text = words(page(copy))
    assert f"reaches a mean Dice of {metrics['dice']['mean']:.2f} on" in text
    assert "None" not in text
