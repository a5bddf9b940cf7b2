"""The report's page, made from the outputs of a finished run."""

import base64
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from llm4seg.config import Config
from llm4seg.config.schema import Model
from llm4seg.data.split import Split, read_split, write_split
from llm4seg.datasets.cases import slices
from llm4seg.report.charts import PARTS, VALIDATION, split_strips, training_curves
from llm4seg.report.data_facts import parts, span
from llm4seg.report.inputs import read_inputs
from llm4seg.report.page import architecture, caution, kept_epoch, render
from llm4seg.report.wording import DASH, number, spelled
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import read_json, remove, write_json, write_text
from pipelines.evaluate import write_evaluation
from pipelines.report import report
from pipelines.split import split
from pipelines.study import write_results
from pipelines.summary import summary, table
from tests import finished_run as finished
from tests.finished_run import LLM, ByIntensity, finished_run, raw_case, write_search
from tests.study_factory import folded, studied

VOID = {"meta", "link", "img", "br", "hr"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A finished run, to read only."""
    config = finished_run(tmp_path_factory.mktemp("run"))
    report(config)
    return config


@pytest.fixture
def copy(run: Config, tmp_path: Path) -> Config:
    """A copy of the finished run, to change."""
    root = run.paths.report.parent.parent
    shutil.copytree(root, tmp_path / "run")
    return finished.config_at(tmp_path / "run", {"data.dataset": "phantom", "model.bottleneck": "identity"})


def page(config: Config) -> str:
    return render(read_inputs(config))


def words(html: str) -> str:
    """The page's text without tags, as a reader sees it."""
    return " ".join(re.sub(r"<(style|svg).*?</\1>|<[^>]*>", " ", html, flags=re.DOTALL).split())


def change_json(path: Path, change: Callable[[Any], None]) -> None:
    values = read_json(path)
    change(values)
    write_json(path, values)


def test_says_what_was_trained_and_how_good_it_is(run: Config) -> None:
    text, metrics = words(run.paths.report.read_text(encoding="utf-8")), read_json(run.paths.metrics)
    assert "CMUNeXt without an LLM layer, trained on 18 cases of phantom, reaches a mean Dice of" in text
    assert f"{metrics['dice']['mean']:.2f} (95% interval {metrics['dice']['low']:.2f} to" in text
    assert f"and {metrics['pooled_dice']:.2f} with the pixels of all cases pooled" in text
    assert f"The best intensity threshold reaches {metrics['baseline']['dice']['mean']:.2f} and" in text
    assert "made-up images: they show that the method runs, not that it helps" in text
    for values in metrics["classes"].values():
        assert f"{values['dice']['mean']:.2f} [{values['dice']['low']:.2f}, {values['dice']['high']:.2f}]" in text


def test_every_tag_is_closed(run: Config) -> None:
    class Checker(HTMLParser):
        open_tags: list[str] = []  # noqa: RUF012

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.open_tags += [] if tag in VOID else [tag]

        def handle_endtag(self, tag: str) -> None:
            assert self.open_tags.pop() == tag, self.getpos()

    checker = Checker()
    checker.feed(run.paths.report.read_text(encoding="utf-8"))
    assert not checker.open_tags


def test_needs_no_other_file_and_no_network(run: Config) -> None:
    html = run.paths.report.read_text(encoding="utf-8")
    assert not re.findall(r"https?://|//[a-z]+\.|@import|<script", html)
    sources = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert all(source.startswith(("#", "data:")) for source in sources)
    assert sum(source.startswith("data:image/png") for source in sources) == 4


def test_the_same_run_gives_the_same_bytes(run: Config) -> None:
    assert page(run) == page(run) == run.paths.report.read_text(encoding="utf-8")


def test_ids_are_unique(run: Config) -> None:
    ids = re.findall(r'\bid="([^"]*)"', run.paths.report.read_text(encoding="utf-8"))
    assert {one for one in ids if ids.count(one) > 1} == set()
    used = set(re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', run.paths.report.read_text(encoding="utf-8")))
    assert {one or other for one, other in used} <= set(ids)


def test_shows_no_placeholder(run: Config) -> None:
    assert not re.findall(
        r"\bNone\b|\bnan\b|\bundefined\b|\{\{|\{%", words(run.paths.report.read_text(encoding="utf-8"))
    )


def test_pictures_and_charts_are_described(run: Config) -> None:
    html = run.paths.report.read_text(encoding="utf-8")
    assert all(re.search(r'alt="[^"]{20,}"', tag) for tag in re.findall(r"<img[^>]*>", html))
    assert all(re.search(r'aria-label="[^"]{20,}"', tag) for tag in re.findall(r"<svg[^>]*>", html))
    assert all('scope="' in tag for tag in re.findall(r"<th\b[^>]*>", html))


def test_tells_where_the_llm_layer_came_from(copy: Config) -> None:
    def with_llm(model: Any) -> None:
        model["llm"] = LLM
        model["config"]["model"]["bottleneck"] = "llm"

    change_json(copy.paths.model / "model.json", with_llm)
    text = words(page(copy))
    assert "CMUNeXt with the frozen layer 14 of SmolLM2-135M-Instruct.Q4_1, trained on" in text
    for value in (
        LLM["source"],
        LLM["licence"],
        LLM["source_sha256"],
        LLM["layers"][0]["sha256"],
        "Layer, counted from 0 14",
    ):
        assert str(value) in text
    change_json(copy.paths.model / "model.json", lambda model: model["llm"].update(source_sha256=None))
    assert "sha256 of the source not checked as a whole" in words(page(copy))


@pytest.mark.parametrize(
    ("weights", "training", "words"),
    [
        ("pretrained", "frozen", "CMUNeXt with the frozen layer 14 of Llama-3.2-1B"),
        ("pretrained", "full", "CMUNeXt with layer 14 of Llama-3.2-1B, trained on"),
        ("random", "full", "CMUNeXt with a layer like Llama-3.2-1B's, trained from random weights"),
        ("random", "frozen", "CMUNeXt with a layer like Llama-3.2-1B's, frozen at random weights"),
    ],
)
def test_names_the_variant(run: Config, weights: str, training: str, words: str) -> None:
    section = run.override({"model.llm.weights": weights, "model.llm.training": training}).plain()["model"]
    model = {"config": {"model": section}, "llm": {**LLM, "source": "/models/Llama-3.2-1B/"}}
    assert architecture(model) == words


@pytest.mark.parametrize("backbone", Model.sections())
def test_names_every_backbone(run: Config, backbone: str) -> None:
    section = run.override({"model.backbone": backbone, "data.size": [64, 64]}).plain()["model"]
    name, _, rest = architecture({"config": {"model": section}, "llm": None}).partition(" without ")
    assert rest == "an LLM layer"
    assert name.lower().replace("-", "").replace(" ", "") == backbone.replace("-", "").replace("smp", "unetonresnet34")


def test_shows_what_the_search_found(copy: Config) -> None:
    assert "Found by the search" not in words(page(copy))
    write_search(copy.paths.search, copy.search)
    found = "model.llm.layer: 7 , optimizer.lr: 0.001 , the best of 3 trials by validation Dice (0.625)."
    assert found in words(page(copy))
    assert page(copy).count('aria-label="The best validation Dice at each layer') == 1


def test_the_parts_hold_all_cases_and_pixels(run: Config) -> None:
    inputs = read_inputs(run)
    rows = parts(inputs)
    assert [row["title"] for row in rows] == ["training", "validation", "test"]
    assert sum(row["cases"] for row in rows) == len(inputs.data.cases)
    totals = [sum(case.pixels[name] for case in inputs.data.cases.values()) for name in inputs.data.classes]
    assert [sum(several) for several in zip(*(row["pixels"] for row in rows), strict=True)] == totals


def test_slices_are_shown_where_they_lie_in_their_volume(run: Config, tmp_path: Path) -> None:
    assert split_strips(read_inputs(run).split, read_inputs(run).data.cases) is None
    config = finished.config_at(tmp_path, {"data.size": [16, 16]})
    labels = np.arange(16 * 16).reshape(16, 16) % 2
    cases = [raw_case(f"s{at:02}", labels, volume="head", position=at) for at in range(12)]
    data = finished.write_cases(config, cases, "a")
    ids = list(data.cases)
    split = Split("by hand", 0, tuple(ids[:6]), tuple(ids[6:8]), tuple(ids[9:]), (ids[8],), ())
    strips = str(split_strips(split, data.cases))
    assert "head" in strips
    assert [strips.count(hue.lower()) for hue in PARTS.values()] == [6, 2, 3, 1]


@pytest.mark.parametrize(
    ("steps", "text"), [([0.97699, 0.97656], "0.98"), ([0.5, 0.75], f"0.50{DASH}0.75"), ([3.0, 2.9999], "3.00")]
)
def test_a_span_of_numbers_that_round_to_one_is_that_one(steps: list[float], text: str) -> None:
    assert span([(step,) for step in steps], 2) == text


def test_settings_are_those_of_the_trained_model(copy: Config) -> None:
    change_json(copy.paths.model / "model.json", lambda model: model["config"]["optimizer"].update(lr=0.00042))
    text = words(page(copy))
    assert "lr 0.00042" in text
    assert "size [128, 128]" in text  # of the grid, beside the phantom's own
    assert "phantom.size [96, 96]" in text
    assert "llm.lora.rank 8" in text
    assert "cmunext.dims [8, 16, 32, 64, 128]" in text
    assert "unet.channels" not in text  # another network's


def test_a_window_of_intensities_is_shown_where_it_is_used(copy: Config) -> None:
    assert "window [-1000, 400]" not in words(page(copy))
    assert "window [-1000, 400]" in words(page(copy.override({"data.intensity": "window"})))


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


def test_shows_the_contact_sheet_and_what_was_noticed_of_the_data(copy: Config) -> None:
    png = base64.b64encode(copy.paths.contact_sheet.read_bytes()).decode()
    assert f'<img src="data:image/png;base64,{png}" alt="Cases spread over the dataset' in page(copy)
    assert "Noticed when the data were read" not in page(copy)
    notices = [f"<{number}> is odd" for number in range(7)]
    change_json(copy.paths.prepared / "manifest.json", lambda manifest: manifest.update(notices=notices))
    assert "<li>&lt;4&gt; is odd</li><li>and 2 more</li>" in page(copy)


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


def test_text_from_outside_is_escaped(copy: Config) -> None:
    change_json(copy.paths.prepared / "manifest.json", lambda manifest: manifest.update(note="<b>5 < 6</b> & more"))
    assert "&lt;b&gt;5 &lt; 6&lt;/b&gt; &amp; more" in page(copy)


def test_warns_when_cases_that_resemble_each_other_were_resampled() -> None:
    assert caution({"unit": "group", "groups": 9, "cases": 30}) is None
    assert caution({"unit": "case", "groups": 4, "cases": 4}) is None
    assert "4 groups (patient or volume), too few to resample" in str(
        caution({"unit": "case", "groups": 4, "cases": 9})
    )


def test_the_kept_epoch_follows_the_rule(copy: Config) -> None:
    history = pd.DataFrame({"epoch": [1, 2, 3], "train_loss": 1, "val_loss": 1, "val_dice": [0.2, 0.6, 0.4], "lr": 1})
    history.to_csv(copy.paths.history, index=False)
    assert kept_epoch(read_inputs(copy)) == 2
    change_json(copy.paths.model / "model.json", lambda model: model["config"]["training"].update(select="last"))
    assert kept_epoch(read_inputs(copy)) == 3
    history.assign(val_dice=float("nan")).to_csv(copy.paths.history, index=False)
    assert kept_epoch(read_inputs(copy)) is None
    assert "The weights kept" not in words(page(copy))


def test_epochs_without_a_validation_do_not_break_its_lines() -> None:
    dice, loss = [math.nan, 0.2, math.nan, 0.6, 0.4], [math.nan, 0.9, math.nan, 0.5, 0.6]
    history = pd.DataFrame({"epoch": range(1, 6), "train_loss": 1.0, "val_loss": loss, "val_dice": dice, "lr": 1.0})
    svg = training_curves(history, 4)
    paths = re.findall(rf'<path d="([^"]*)"[^>]*stroke: {VALIDATION}', svg, flags=re.IGNORECASE)
    lines = [path.split() for path in paths if path.count("L") > 1]
    assert [(line.count("M"), line.count("L")) for line in lines] == [(1, 2)] * 3  # of three points, one the legend's


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "null"), (True, "true"), (15.0, "15"), (0.0003, "0.0003"), ([1, 2.5], "[1, 2.5]"), ("best", "best")],
)
def test_values_are_spelled_as_in_params(value: Any, text: str) -> None:
    assert spelled(value) == text


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


def test_summary_shows_the_classes_and_where_things_are(
    run: Config, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.paths.report.parent.parent)
    summary(run)
    out, metrics = capsys.readouterr().out, read_json(run.paths.metrics)
    for name, values in metrics["classes"].items():
        assert name in out
        assert f"{values['dice']['mean']:.2f} [{values['dice']['low']:.2f}, {values['dice']['high']:.2f}]" in out
    assert "outputs/report.html" in out
    assert "outputs/evaluation/overlays" in out


@pytest.mark.parametrize(("value", "shown"), [(-0.04, "0.0"), (-0.05001, "-0.1"), (0.04, "0.0"), (None, DASH)])
def test_a_number_that_is_shown_as_zero_has_no_sign(value: float | None, shown: str) -> None:
    assert number(value, 1) == shown


def test_summary_without_numbers_shows_dashes(run: Config) -> None:
    metrics = read_json(run.paths.metrics)
    metrics["classes"]["lesion 1"]["dice"] = {"mean": None, "std": None, "low": None, "high": None, "n": 0}
    assert next(iter(table(metrics).columns[1].cells)) == "-"


@pytest.mark.parametrize(("missing", "stage"), [("metrics", "evaluate"), ("report", "report")])
def test_summary_names_the_stage_to_run(copy: Config, missing: str, stage: str) -> None:
    remove(getattr(copy.paths, missing))
    with pytest.raises(InputError, match=f"not there yet; run `dvc repro {stage}`"):
        summary(copy)


def test_summary_imports_nothing_heavy() -> None:
    import subprocess
    import sys

    heavy = "torch", "monai", "pandas", "numpy", "matplotlib"
    code = f"import pipelines.summary, sys; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_shows_the_study_when_there_is_one(copy: Config) -> None:
    page_without = page(copy)
    assert 'id="study"' not in page_without
    effects = {"cnn": 0.0, "random": 0.0, "llm": 0.05}
    section = {"study.repeats": 4, "study.arms": {name: {} for name in effects}, "study.references": ["cnn", "random"]}
    write_results(copy.override(section), studied(effects, 4, 20))
    html = page(copy)
    text = words(html)
    assert re.search(
        r"llm: \+\d\.\d Dice points against random, 95 % interval .* 4 paired runs: better than random", text
    )
    assert "12 of 12 runs have finished" in text
    assert html.count("<svg") == page_without.count("<svg") + 2
    assert not re.findall(r"\bNone\b|\bnan\b", text)
    assert html == page(copy)


def test_shows_the_cross_validation_of_a_single_arm(copy: Config) -> None:
    """With no arm to compare it with, there are no verdicts and no charts."""
    page_without = page(copy)
    folds = {"study.repeats": 1, "study.folds": [0, 1], "study.arms": {"model": {}}, "study.references": ["model"]}
    write_results(copy.override(folds), folded({"model": 0.0}, 2, 6))
    html = page(copy)
    assert re.search(r"model mean 12 0\.\d{3} \[0\.\d{3}, 0\.\d{3}\] 0\.\d{3} 0\.\d{3}", words(html))
    assert "Dice over the 12 cases of all folds together" in words(html)
    assert html.count("<svg") == page_without.count("<svg")
    assert "2 of 2 runs have finished" in words(html)
    assert not re.findall(r"\bNone\b|\bnan\b", words(html))


def test_shows_what_options_gain_and_what_an_ensemble_has_seen(copy: Config) -> None:
    metrics = read_json(copy.paths.metrics)
    assert "Option" not in words(page(copy))
    gain = {"mean": 0.012, "std": 0.01, "low": 0.002, "high": 0.0225, "n": 9}
    metrics["gains"] = {"ensemble": dict.fromkeys(("dice", "nsd", "false_lesions"), gain) | {"classes": {}}}
    write_json(copy.paths.metrics, metrics | {"models": {"count": 5, "seen": 3}})
    text = words(page(copy.override({"evaluation.models": ["/home/me/seed-0", "/home/me/seed-1"]})))
    assert "[seed-0, seed-1]" in text
    assert "/home/me" not in text
    assert "the ensemble, over the mean of its models, 1.20 [0.20, 2.25] 1.20 [0.20, 2.25] 0.01 [0.00, 0.02]" in text
    assert "3 of these cases were in the training or validation of a model" in text
    assert "The mean of 5 models reaches a mean Dice of" in text


def test_shows_a_study_with_too_few_runs_for_any_p(copy: Config) -> None:
    effects = {"cnn": 0.0, "llm": 0.05}
    section = {"study.repeats": 1, "study.arms": {name: {} for name in effects}, "study.references": ["cnn"]}
    write_results(copy.override(section), studied(effects, 1, 1, slices=12))
    text = words(page(copy))
    assert "1 paired run: too few runs to say whether it differs from cnn" in text
    assert "All 12 cases are of one patient or volume" in text


def test_shows_a_study_of_several_datasets_and_of_a_single_unit(copy: Config) -> None:
    effects = {"cnn": 0.0, "llm": 0.05}
    section = {"study.repeats": 3, "study.arms": {name: {} for name in effects}, "study.references": ["cnn"]}
    runs = studied(effects, 3, 1)
    for _, record in runs:
        assert record is not None
        more = [{**row, "case": f"c{at}", "group": f"c{at}"} for row in record["rows"] for at in range(6)]
        record["rows"] += [{**row, "data": "other"} for row in more]
    write_results(copy.override(section), runs)
    text = words(page(copy))
    assert "drawn llm cnn 3 1 1 cases" in text
    assert "other llm cnn 3 6 6 patients" in text
    assert "too few cases to say whether it differs from cnn" in text
    assert not re.findall(r"\bNone\b|\bnan\b", text)
