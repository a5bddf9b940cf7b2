"""The report's section on the data: its parts, and the dataset in words."""

from collections.abc import Mapping, Sequence
from typing import Any

from llm4seg.data.intensity import PERCENTILES
from llm4seg.data.label_scheme import LabelScheme
from llm4seg.data.prepared import Case, Prepared
from llm4seg.report.inputs import Inputs
from llm4seg.report.wording import DASH, TIMES, number, plural

PART_NAMES = {"train": "training", "val": "validation", "test": "test", "left_out": "left out"}


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
