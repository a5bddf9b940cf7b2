"""What of params.yaml differs from the last commit, and which of it the trainings at hand do not read."""

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llm4seg.config.config import Config
from llm4seg.config.params_file import parse, read
from llm4seg.config.schema import DEFAULT_LLM
from llm4seg.utils.errors import InputError
from llm4seg.utils.text import elided

LLM_ONLY = ("layer", "norm", "weights", "training", "lora", "position", "attention", "dtype", "checkpointing")
SHOWN, LONGEST = 8, 50  # parameters in a line, and letters of a value


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


def committed_values(path: Path) -> dict[str, Any]:
    """Dotted parameters of a params.yaml as of the last commit; none outside of git."""
    try:
        command = ["git", "show", f"HEAD:./{path.name}"]
        shown = subprocess.run(command, cwd=path.absolute().parent, capture_output=True, check=True)
        return dict(_leaves(parse(shown.stdout, "HEAD")))
    except (FileNotFoundError, subprocess.CalledProcessError, InputError):  # no git, no checkout, another file
        return {}


def changes_since_commit(path: Path) -> dict[str, str]:
    """Dotted parameters of a params.yaml that differ from the last commit's: `now (then)`. None outside of git."""
    then = committed_values(path)
    if not then:
        return {}
    now = dict(_leaves(read(path)))
    names = [*now, *(name for name in then if name not in now)]
    changed = [name for name in names if name not in now or name not in then or now[name] != then[name]]
    return {name: f"{_word(now, name)} ({_word(then, name)})" for name in changed}


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _word(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name, "not there")
    return elided(value if isinstance(value, str) else json.dumps(value, default=str), LONGEST)


def _listed(items: Sequence[str]) -> str:
    more = f", and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(items[:SHOWN]) + more


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
    for name in config.llm.named:
        if name != llm.source:
            own = ("llm.source", "llm.sha256", "llm.layer_sha256")
            for parameter in own if name == DEFAULT_LLM else (f"llm.sources.{name}",):
                yield parameter, f"model.llm.source is {llm.source}"
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
    of_another_grid = (
        ("data.spacing", "training.patch", "evaluation.overlap") if config.data.grid == "resize" else ("data.size",)
    )
    for name in of_another_grid:
        yield name, f"data.grid is {config.data.grid}"
    if config.optimizer.name != "sgd":
        for name in ("optimizer.momentum", "optimizer.nesterov"):
            yield name, f"optimizer.name is {config.optimizer.name}"
