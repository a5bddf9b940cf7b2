"""The report's page, made from the outputs of a finished run."""

import base64
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from llm4seg.config import Config
from llm4seg.config.schema import Model
from llm4seg.data.split import Split
from llm4seg.report.charts import PARTS, VALIDATION, split_strips, training_curves
from llm4seg.report.data_facts import parts, span
from llm4seg.report.inputs import read_inputs
from llm4seg.report.page import architecture, caution, kept_epoch
from llm4seg.report.wording import DASH, spelled
from llm4seg.utils.files import read_json
from tests import finished_run as finished
from tests.finished_run import LLM, raw_case
from tests.report_page import change_json, page, words

VOID = {"meta", "link", "img", "br", "hr"}


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


def test_shows_the_contact_sheet_and_what_was_noticed_of_the_data(copy: Config) -> None:
    png = base64.b64encode(copy.paths.contact_sheet.read_bytes()).decode()
    assert f'<img src="data:image/png;base64,{png}" alt="Cases spread over the dataset' in page(copy)
    assert "Noticed when the data were read" not in page(copy)
    notices = [f"<{number}> is odd" for number in range(7)]
    change_json(copy.paths.prepared / "manifest.json", lambda manifest: manifest.update(notices=notices))
    assert "<li>&lt;4&gt; is odd</li><li>and 2 more</li>" in page(copy)


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
