"""The report's text and numbers, filled into the page template."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from llm4seg.analysis.places import AFTER, BEFORE
from llm4seg.analysis.results import AnalysisResult
from llm4seg.analysis.verdicts import class_words
from llm4seg.config.schema import Model
from llm4seg.evaluation.gains import OPTIONS
from llm4seg.evaluation.score_tables import score_tables
from llm4seg.evaluation.volumes import not_whole
from llm4seg.report import charts, study_charts
from llm4seg.report.analysis_charts import draw_analysis
from llm4seg.report.data_facts import PART_NAMES, data_facts, parts, pixels_of
from llm4seg.report.inputs import Inputs
from llm4seg.report.search_charts import draw_search
from llm4seg.report.wording import estimate, flat, interval, number, plural, points, spelled
from llm4seg.study.results import StudyResult
from llm4seg.utils.drawing import colors
from llm4seg.utils.text import in_short

COLUMNS = {  # the table's columns after Dice: title, metric, digits
    "IoU": ("iou", 2),
    "Precision": ("precision", 2),
    "Recall": ("recall", 2),
    "HD95": ("hd95", 1),
    "NSD": ("nsd", 2),
}

KINDS = {"group": "patients", "block": "blocks of neighboring slices", "case": "images"}  # units of the analysis


def render(inputs: Inputs) -> str:
    """The page as one HTML text that needs no other file and no network; equal inputs give equal text."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters.update(
        number=number,
        estimate=estimate,
        points=points,
        interval=interval,
        spelled=spelled,
        in_short=in_short,
        flat=flat,
    )
    return environment.get_template("page.html.j2").render(
        inputs=inputs,
        columns=COLUMNS,
        hues=dict(zip(inputs.data.classes, colors(len(inputs.data.classes)), strict=True)),
        verdict=verdict(inputs),
        tables=score_tables(inputs.metrics),
        cautions={of: caution(scores, of) for of, scores in score_tables(inputs.metrics).items()},
        kept=kept_epoch(inputs),
        overlays=overlays(inputs),
        parts=parts(inputs),
        part_hues=charts.PARTS,
        facts=data_facts(inputs),
        pixels=pixels_of(inputs.data),
        contact_sheet=data_url(inputs.contact_sheet),
        curves=charts.training_curves(inputs.history, kept_epoch(inputs)),
        without_volumes=without_volumes(inputs),
        distributions=distributions(inputs),
        search_charts=draw_search(inputs.search) if inputs.search else {},
        strips=charts.split_strips(inputs.split, inputs.data.cases),
        study=inputs.study and study(inputs.study),
        analysis=inputs.analysis and analysis(inputs.analysis),
        kinds_of_units=KINDS,
        gains=inputs.metrics.get("gains", {}),
        gain_names=OPTIONS,
        seen=inputs.metrics.get("models", {}).get("seen"),
    )


def llm_name(source: str) -> str:
    """The LLM's name, from the last part of its source."""
    return source.rstrip("/").rsplit("/", 1)[-1].removesuffix(".gguf").removesuffix(".safetensors")


def architecture(model: Mapping[str, Any]) -> str:
    """The trained network in words, from model.json."""
    section = model["config"]["model"]
    chosen = Model.model_validate(section).chosen
    backbone = chosen.title.format(**chosen.model_dump())
    if section["bottleneck"] == "mlp":
        return f"{backbone} with an MLP in the place of an LLM"
    if model["llm"] is None:
        return f"{backbone} without an LLM layer"
    name, layers = llm_name(model["llm"]["source"]), section["llm"]["layer"]
    which = f"layer{'s' if len(layers) > 1 else ''} {', '.join(map(str, layers))}"
    like = f"a layer like {name}'s" if len(layers) == 1 else f"{len(layers)} layers like {name}'s"
    training = section["llm"]["training"]
    kind = {
        "pretrained": {
            "frozen": f"the frozen {which} of {name}",
            "full": f"{which} of {name}, trained on",
            "lora": f"{which} of {name}, changed by LoRA of rank {section['llm']['lora']['rank']}",
        },
        "random": {
            "frozen": f"{like}, frozen at random weights",
            "full": f"{like}, trained from random weights",
            "lora": f"{like}, random and changed by LoRA",
        },
        "shuffled": {
            "frozen": f"the frozen {which} of {name}, its weights shuffled",
            "full": f"{which} of {name}, trained from shuffled weights",
            "lora": f"{which} of {name}, shuffled and changed by LoRA",
        },
    }[section["llm"]["weights"]][training]
    return f"{backbone} with {kind}"


def verdict(inputs: Inputs) -> str:
    """The result in words: the model, its data, its Dice with interval, and the threshold baseline's."""
    of, metrics = next(iter(score_tables(inputs.metrics).items()))
    dice, threshold_baseline = metrics["dice"], metrics["baseline"]
    model = f"{architecture(inputs.model)}, trained on {len(inputs.split.train)} cases of {inputs.data.name},"
    if ensemble := inputs.metrics.get("models"):
        count = ensemble["count"]
        model = f"The mean of {count} models" if count > 1 else "The model of evaluation.models"
    part, by_threshold = PART_NAMES[metrics["part"]], number(threshold_baseline["dice"]["mean"])
    if metrics["cases"] == 1:
        return (
            f"{model} reaches a mean Dice of {number(dice['mean'])} on one {part} {of.removesuffix('s')}. The best "
            f"intensity threshold reaches {by_threshold}."
        )
    ends = interval(dice)
    within = f" ({metrics['confidence']:.0%} interval {ends})" if ends else ""
    return (
        f"{model} reaches a mean Dice of {number(dice['mean'])}{within} on {metrics['cases']} {part} {of}, and "
        f"{number(metrics['pooled_dice'])} with the {pixels_of(inputs.data)} of all {of} pooled. The best intensity "
        f"threshold reaches {by_threshold} and {number(threshold_baseline['pooled_dice'])}."
    )


def caution(metrics: Mapping[str, Any], of: str = "cases") -> str | None:
    """A warning when the interval resampled cases (`of`: or slices, or volumes) that resemble each other."""
    if metrics["unit"] == "group" or metrics["groups"] == metrics["cases"]:
        return None
    return (
        f"The {metrics['cases']} {of} come from {metrics['groups']} {plural('group', metrics['groups'])} "
        f"(patient or volume), too few to resample. {of.capitalize()} of one group resemble each other, so the true "
        "uncertainty is larger than the intervals say."
    )


def study(study: StudyResult) -> dict[str, Any]:
    """The section on the study: its rows, and its charts."""
    finished = study.runs[study.runs["state"] == "finished"]
    if "data" in finished:  # of several data sets: each has means of its own
        finished = finished.assign(arm=finished["arm"] + ", " + finished["data"])
    means = finished.groupby("arm", sort=False)[study.summary["metric"]].agg(["mean", "std", "count"])
    over_folds = study.summary.get("cross_validation")
    return {
        "metric": study_charts.METRICS[study.summary["metric"]],
        "scale": study_charts.scale(study.summary["metric"]),
        "over_folds": over_folds,
        "caution_over_folds": over_folds and caution(over_folds, f"{study.summary.get('per', 'case')}s"),
        "arms": [{"arm": arm, **row} for arm, row in means.to_dict("index").items()],
        "rows": study.comparisons.to_dict("records"),
        **study_charts.draw_study(study),
    }


def analysis(result: AnalysisResult) -> dict[str, Any]:
    """The section on the features: its chart, and each class's differences through the block."""
    changes = result.summary["differences"].get(f"{AFTER} - {BEFORE}", {}).get("classes", {})
    return {
        "headline": class_words(result.summary["headline"]),
        "chart": draw_analysis(result),
        "changes": {name: change for name, change in changes.items() if change},
    }


def without_volumes(inputs: Inputs) -> str | None:
    """Why slices have no scores per volume; None where they have, are no slices, or an earlier version wrote them."""
    if inputs.metrics.get("headline") != "slices":
        return None
    return not_whole(inputs.data, getattr(inputs.split, inputs.metrics["part"]))


def distributions(inputs: Inputs) -> dict[str, str]:
    """The Dice of every volume, where there are any, and of every case, as SVG by name."""
    tables = {"volumes": inputs.volumes, "cases": inputs.cases}
    classes = inputs.data.classes
    return {
        name: charts.dice_by_case(table, classes, name.removesuffix("s"))
        for name, table in tables.items()
        if table is not None
    }


def kept_epoch(inputs: Inputs) -> int | None:
    """The epoch whose weights were kept; None when no epoch has a validation Dice."""
    known = inputs.history.dropna(subset="val_dice")
    if known.empty:
        return None
    best = inputs.model["config"]["training"]["select"] == "best"
    return int(known["epoch"].iloc[known["val_dice"].argmax() if best else -1])


def data_url(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def overlays(inputs: Inputs) -> dict[str, tuple[str, str]]:
    """For each role the overlay as a data URL, and its description."""
    return {
        role: (
            data_url(png),
            f"The {role} case: image, reference and prediction side by side",
        )
        for role, png in inputs.overlays.items()
    }
