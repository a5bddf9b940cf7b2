"""The values of the project's params.yaml, for tests to change and to load."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from llm4seg.config import Config
from tests.import_graph import ROOT

PARAMS = ROOT / "params.yaml"
LOADED: dict[str, Any] = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))


def values(changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A copy of them, with dotted parameters changed or added."""
    changed = copy.deepcopy(LOADED)
    for dotted, value in (changes or {}).items():
        section, name = holder(changed, dotted)
        section[name] = value
    return changed


def holder(everything: dict[str, Any], dotted: str) -> tuple[dict[str, Any], str]:
    """The section that holds a parameter, and its last name."""
    *parents, name = dotted.split(".")
    for parent in parents:
        everything = everything[parent]
    return everything, name


def load(folder: Path, everything: dict[str, Any]) -> Config:
    """The config of these values as a params.yaml in a folder."""
    path = folder / "params.yaml"
    path.write_text(json.dumps(everything).replace("NaN", ".nan"))  # JSON is YAML, and quick
    return Config.load(path)


def load_with(folder: Path, dotted: str, value: Any) -> Config:
    """The config of the project's values with one changed."""
    return load(folder, values({dotted: value}))
