"""The method of a trained model: its name, and what differs between two of them."""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from llm4seg.config.changes import leaves

UNREAD = ("training.seed", "engine.")  # parameters in which runs of one method may differ


def method_of(about: Mapping[str, Any]) -> str:
    """A name out of model.json: the backbone, and what is in its bottleneck."""
    model = about["config"]["model"]
    if model["bottleneck"] != "llm":
        return str(model["backbone"]) if model["bottleneck"] == "identity" else f"{model['backbone']} + mlp"
    block = model["llm"]
    layers = ", ".join(map(str, block["layer"]))
    source = PurePosixPath(about["llm"]["source"]).name if about.get("llm") else "LLM"
    return f"{model['backbone']} + {source} layer {layers}, {block['weights']}, {block['training']}"


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The dotted parameters of two models' configs that differ, but for those in which runs of one method may."""
    values, others = (dict(leaves(about["config"])) for about in (one, other))
    names = [name for name in {**values, **others} if values.get(name) != others.get(name)]
    return [name for name in names if not name.startswith(UNREAD)]
