"""Numbers and parameters as the report words them."""

import json
import math
from collections.abc import Mapping
from typing import Any

DASH, TIMES = "\u2013", " \u00d7 "


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


def plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"
