"""The report's text and numbers, filled into the page template."""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from llm4seg.config.schema import Model
from llm4seg.data.intensity import PERCENTILES
from llm4seg.data.label_scheme import LabelScheme
from llm4seg.data.prepared import Case, Prepared
from llm4seg.evaluation.gains import OPTIONS
from llm4seg.evaluation.score_tables import score_tables
from llm4seg.evaluation.volumes import not_whole
from llm4seg.report import charts, study_charts
from llm4seg.report.inputs import Inputs
from llm4seg.report.search_charts import draw_search
from llm4seg.study.results import StudyResult
from llm4seg.utils.drawing import colors
from llm4seg.utils.text import in_short

DASH, TIMES = "\u2013", " \u00d7 "
COLUMNS = {  # the table's columns after Dice: title, metric, digits
    "IoU": ("iou", 2),
    "Precision": ("precision", 2),
    "Recall": ("recall", 2),
    "HD95": ("hd95", 1),
    "NSD": ("nsd", 2),
}
PART_NAMES = {"train": "training", "val": "validation", "test": "test", "left_out": "left out"}


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
        gains=inputs.metrics.get("gains", {}),
        gain_names=OPTIONS,
        seen=inputs.metrics.get("models", {}).get("seen"),
    )


def number(value: float | None, digits: int = 2) -> str:
    """A number with this many decimals, without a sign where they are all zero; a dash where there is none."""
    return DASH if value is None or math.isnan(value) else f"{value:z.{digits}f}"


def estimate(values: Mapping[str, Any], digits: int = 2) -> str:
    """A mean with its interval, where there is one."""
    if values["low"] is None:
        return number(values["mean"], digits)
    return f"{number(values['mean'], digits)} [{number(values['low'], digits)}, {number(values['high'], digits)}]"


def points(values: Mapping[str, Any]) -> str:
    """As `estimate`, of a difference between shares, in points."""
    return estimate({name: 100 * value if value is not None else None for name, value in values.items()}, 2)


def interval(values: Mapping[str, Any], digits: int = 2) -> str:
    """The ends of an interval in words; empty where there is none."""
    return "" if values["low"] is None else f"{number(values['low'], digits)} to {number(values['high'], digits)}"


def flat(section: Mapping[str, Any]) -> dict[str, Any]:
    """A section's parameters by their dotted names within it."""
    found: dict[str, Any] = {}
    for name, value in section.items():
        if isinstance(value, Mapping) and value:
            found |= {f"{name}.{inner}": one for inner, one in flat(value).items()}
        else:
            found[name] = value
    return found


def spelled(value: Any) -> str:
    """A parameter's value as params.yaml spells it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {spelled(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(spelled, value))}]"
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


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
    means = finished.groupby("arm", sort=False)[study.summary["metric"]].agg(["mean", "std", "count"])
    over_folds = study.summary.get("cross_validation")
    return {
        "metric": study_charts.METRICS[study.summary["metric"]],
        "over_folds": over_folds,
        "caution_over_folds": over_folds and caution(over_folds, f"{study.summary.get('per', 'case')}s"),
        "arms": [{"arm": arm, **row} for arm, row in means.to_dict("index").items()],
        "rows": study.comparisons.to_dict("records"),
        **study_charts.draw_study(study),
    }


def plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"


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


def parts(inputs: Inputs) -> list[dict[str, Any]]:
    """A row per non-empty part of the split: its numbers of cases, of groups, and of pixels of each class."""
    rows = []
    for part, title in PART_NAMES.items():
        cases = [inputs.data.cases[case_id] for case_id in getattr(inputs.split, part)]
        groups = {case.group for case in cases}
        pixels = [sum(case.pixels[name] for case in cases) for name in inputs.data.classes]
        rows.append({"part": part, "title": title, "cases": len(cases), "groups": len(groups), "pixels": pixels})
    return [row for row in rows if row["cases"]]


def data_facts(inputs: Inputs) -> dict[str, str]:
    """The dataset in rows of name and value."""
    data = inputs.data
    cases = list(data.cases.values())
    groups = len({case.group for case in cases})
    return {
        "Name": data.name,
        "Licence": data.license,
        "Citation": data.citation,
        "Cases": f"{len(cases)}, of {groups} {plural('group', groups)} (patient or volume)",
        "Native size": f"{span([case.shape for case in cases], 0)} {pixels_of(data)}",
        "Spacing": spacing(cases),
        "Grid of the network": grid(data, inputs.model["data"]["size"]),
        **intensities(inputs.model["data"]),
        "Classes": classes(data.scheme),
        **({"Note": data.note} if data.note else {}),
        "sha256": data.sha256,
    }


def grid(data: Prepared, patch: Sequence[int]) -> str:
    """What the network reads: images of one size, or patches of volumes at a spacing."""
    if data.spacing is None:
        return TIMES.join(map(str, data.size))
    shapes: list[tuple[float, ...]] = [case.on_grid.shape for case in data.cases.values()]
    spacing = TIMES.join(number(step, 2) for step in data.spacing)
    return f"{spacing} mm, {span(shapes, 0)} voxels, in patches of {TIMES.join(map(str, patch))}"


def pixels_of(data: Prepared) -> str:
    return "voxels" if data.spatial_dims == 3 else "pixels"


def intensities(trained: Mapping[str, Any]) -> dict[str, str]:
    """A row for each channel on the statistics that `ct` normalizes by, from model.json; none for other intensities."""
    channels = (trained.get("normalization") or {}).get("foreground") or []
    names = ["Intensities"] if len(channels) == 1 else [f"Intensities of channel {k}" for k in range(len(channels))]
    low, high = (f"{100 * share:g}" for share in PERCENTILES)
    return {
        name: f"percentiles {low} and {high}, to which they are clipped: {number(one['low'], 0)} and "
        f"{number(one['high'], 0)}; mean {number(one['mean'], 0)} and standard deviation {number(one['std'], 0)}, "
        "which become 0 and 1: of what is labeled in the training part"
        for name, one in zip(names, channels, strict=True)
    }


def classes(scheme: LabelScheme) -> str:
    """The classes in words."""
    names = ", ".join(scheme.classes) + (" (regions, which may overlap)" if scheme.regions else "")
    return names + ("; ignored pixels count nowhere" if scheme.ignore else "")


def spacing(cases: Sequence[Case]) -> str:
    """The spacing of the cases in words."""
    known = [case.spacing for case in cases if case.unit == "mm"]
    facts = [f"{span(known, 2)} mm"] if known else []
    if len(known) < len(cases):
        facts.append("not known: distances are in px")
    return ", or ".join(facts)


def span(several: list[tuple[float, ...]], digits: int) -> str:
    """Smallest to largest along each axis; one number where both round to it."""
    ends = [(number(min(axis), digits), number(max(axis), digits)) for axis in zip(*several, strict=True)]
    return TIMES.join(low if low == high else low + DASH + high for low, high in ends)
