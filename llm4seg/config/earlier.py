"""What version 0.1.0 had otherwise: values that are called something else now, and parameters that it did not have.

Digests, names of runs and comparisons only ever see what `current` returns.
"""

from collections.abc import Mapping
from typing import Any

VALUES = {  # parameter: its values that were renamed, as they were and as they are
    "training.loss": {"paper": "bce_dice"},
    "model.llm.position": {"paper": "released"},
    "preset": {"paper-exact": "released"},  # in an arm of a study
}
PRESETS = VALUES["preset"]
# parameter: the value with which is computed what was computed without it, and what params.yaml says of it
ADDED: dict[str, tuple[Any, str]] = {
    "paths.pictures": ("outputs/pictures", "of search and study, as SVG"),
    "cluster.launcher": ("ray", "ray | process: one worker in the command's own process, without Ray"),
}
UPGRADE = "it is of an earlier version: python -m pipelines.upgrade"


def current(value: Any, name: str = "") -> Any:
    """A value with its words as they are called now: of the parameter `name`, or a mapping of parameters, dotted or
    nested, with values, lists of them, or a search's distributions of them.
    """
    if isinstance(value, Mapping):
        return {key: current(one, name if key == "choice" else f"{name}.{key}") for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(current(one, name) for one in value)
    if isinstance(value, str):
        return renamed(value, name)
    return value


def renamed(word: str, name: str) -> str:
    """A word as it is called now where `name` ends in the name of a parameter with renamed values."""
    found = [words for parameter, words in VALUES.items() if f".{name}".endswith(f".{parameter}")]
    return found[0].get(word, word) if found else word


def current_presets(presets: Any) -> Any:
    """Presets by their names as they are now. Raises ValueError when one is there under both."""
    if not isinstance(presets, Mapping):
        return presets
    for was, now in PRESETS.items():
        if was in presets and now in presets:
            raise ValueError(f"found {was} and {now}, which is its name now; allowed: one of them")
    return {PRESETS.get(name, name): changes for name, changes in presets.items()}


def current_sections(sections: Mapping[str, Any]) -> dict[str, Any]:
    """Sections of a config as a file of any version has them, with the parameters that were added since."""
    found: dict[str, Any] = current(sections)
    for dotted, (value, _) in ADDED.items():
        *parents, name = dotted.split(".")
        section: Any = found
        for parent in parents:
            section = section.get(parent) if isinstance(section, dict) else None
        if isinstance(section, dict) and parents:
            section.setdefault(name, value)
    return found
