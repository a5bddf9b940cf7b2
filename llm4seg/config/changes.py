"""What of params.yaml differs from the last commit, and which of it the trainings at hand do not read."""

import json
import subprocess
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llm4seg.config.config import Config
from llm4seg.config.params_file import parse, read
from llm4seg.utils.errors import InputError

LLM_ONLY = ("layer", "norm", "weights", "training", "lora", "position", "attention", "dtype", "checkpointing")
SHOWN = 8  # parameters in a line


def notes(path: Path, trainings: Sequence[Config]) -> list[str]:
    """One line with the parameters that differ from the last commit, and one with those that no training reads."""
    changes = changes_since_commit(path)
    if not changes:
        return []
    lines = [
        "parameters that differ from the last commit: " + _listed([f"{name} {how}" for name, how in changes.items()])
    ]
    reasons = {name: _reason(name, trainings) for name in changes}
    if unread := [f"{name} ({reason})" for name, reason in reasons.items() if reason]:
        lines.append("warning: of these have no effect: " + _listed(unread))
    return lines


def changes_since_commit(path: Path) -> dict[str, str]:
    """Dotted parameters of a params.yaml that differ from the last commit's: `now (then)`. None outside of git."""
    try:
        command = ["git", "show", f"HEAD:./{path.name}"]
        shown = subprocess.run(command, cwd=path.absolute().parent, capture_output=True, check=True)
        then = dict(_leaves(parse(shown.stdout, "HEAD")))
    except (FileNotFoundError, subprocess.CalledProcessError, InputError):  # no git, no checkout, another file
        return {}
    now = dict(_leaves(read(path)))
    names = [*now, *(name for name in then if name not in now)]
    values = {name: tuple(_word(side[name]) if name in side else "not there" for side in (now, then)) for name in names}
    return {name: f"{new} ({old})" for name, (new, old) in values.items() if new != old}


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _listed(items: Sequence[str]) -> str:
    more = f", and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(textwrap.shorten(item, 120) for item in items[:SHOWN]) + more


def _reason(name: str, trainings: Sequence[Config]) -> str | None:
    """Why no training reads a parameter, by the first of them; None if one does."""
    found = [
        next((why for prefix, why in _unread(config) if f"{name}.".startswith(f"{prefix}.")), None)
        for config in trainings
    ]
    return found[0] if found and all(found) else None


def _unread(config: Config) -> Iterator[tuple[str, str]]:
    """The parameters and sections that a training does not read, each with the reason."""
    model, llm = config.model, config.model.llm
    for name, section in model.sections().items():
        if name != model.backbone:
            yield f"model.{section}", f"model.backbone is {model.backbone}"
    if model.bottleneck == "identity":
        yield "model.llm", "model.bottleneck is identity"
    if model.bottleneck == "mlp":
        for parameter in LLM_ONLY:
            yield f"model.llm.{parameter}", "model.bottleneck is mlp"
    if llm.training != "lora":
        yield "model.llm.lora", f"model.llm.training is {llm.training}"
    if llm.adapter.kind == "linear":
        for parameter in ("width", "norm", *(["activation"] if model.bottleneck == "llm" else [])):
            yield f"model.llm.adapter.{parameter}", "model.llm.adapter.kind is linear"
    if config.optimizer.name != "sgd":
        yield "optimizer.momentum", f"optimizer.name is {config.optimizer.name}"
