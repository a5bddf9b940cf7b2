"""The numbers of an analysis in plain sentences."""

from typing import Any

from llm4seg.analysis.images import ANY
from llm4seg.analysis.places import AFTER, BEFORE

Numbers = dict[str, Any]
CHANCE = "chance is 0.5"
OVERLAPS = {  # of the headline class: what a sentence is about
    "auroc": "the map's AUROC",
    "probe": "the probe's balanced accuracy",
    "iou_area": "the map's IoU at the mask's area",
    "iou_best": "the map's IoU at the best of 9 thresholds",
}


def verdicts(summary: Numbers) -> list[str]:
    """What the numbers say of the headline class and of the tokens, in sentences."""
    name = summary["headline"]
    of_class = summary["classes"][name]
    known = [measure for measure in OVERLAPS if of_class[BEFORE].get(measure, {}).get("n")]
    if AFTER not in summary["places"]:
        alone = [_alone(measure, name, of_class[BEFORE][measure]) for measure in known]
        return [f"No block: only {BEFORE} is measured, which is what enters the decoder.", *alone]
    changes = summary["differences"][f"{AFTER} - {BEFORE}"]
    lines = [_through(measure, name, of_class, changes["classes"][name][measure]) for measure in known]
    return [*lines, _rank(summary["tokens"], changes["tokens"]["effective_rank"])]


def _alone(measure: str, name: str, values: Numbers) -> str:
    """A measure where there is no block."""
    return f"{_title(measure)} of {class_words(name)} at {BEFORE} is {_spelled(values)}; {_floor(values, measure)}."


def _through(measure: str, name: str, of_class: Numbers, change: Numbers) -> str:
    """A measure on both sides of the block, its change, and its floor."""
    before, after = of_class[BEFORE][measure], of_class[AFTER][measure]
    what = f"{_title(measure)} of {class_words(name)}"
    return (
        f"{what} at {AFTER} is {_spelled(after)}, {_signed(change)} against {_spelled(before)} at "
        f"{BEFORE}: {judgment(change)}; {_floor(after, measure)}."
    )


def _floor(values: Numbers, measure: str) -> str:
    if measure in ("auroc", "probe"):
        return CHANCE
    return (
        f"its floors there are {_number(values['everything'])} (everything) and {_number(values['shifted'])} (shifted)"
    )


def _rank(tokens: Numbers, change: Numbers) -> str:
    before, after = (tokens[place]["effective_rank"] for place in (BEFORE, AFTER))
    most = min(tokens[AFTER]["tokens"], tokens[AFTER]["width"])
    return (
        f"The effective rank of an image's tokens goes from {_spelled(before, 1)} at {BEFORE} to {_spelled(after, 1)} "
        f"at {AFTER}, of at most {most}: {judgment(change)}."
    )


def judgment(difference: Numbers) -> str:
    """Whether a difference is distinguishable from zero by its interval."""
    if difference["low"] is None:
        return "too few units for an interval"
    if difference["low"] > 0:
        return "a rise"
    if difference["high"] < 0:
        return "a fall"
    return "not distinguishable from no change"


def class_words(name: str) -> str:
    """A class as sentences name it."""
    return "any class" if name == ANY else name


def _title(measure: str) -> str:
    words = OVERLAPS[measure]
    return words[0].upper() + words[1:]


def _number(value: float | None, digits: int = 2) -> str:
    return "none" if value is None else f"{value:z.{digits}f}"


def _spelled(one: Numbers, digits: int = 2) -> str:
    if one["low"] is None:
        return _number(one["mean"], digits)
    return f"{_number(one['mean'], digits)} [{_number(one['low'], digits)}, {_number(one['high'], digits)}]"


def _signed(one: Numbers) -> str:
    if one["low"] is None:
        return f"{one['mean']:+z.2f}"
    return f"{one['mean']:+z.2f} [{one['low']:+z.2f}, {one['high']:+z.2f}]"
