"""The JSON that goes with an exported network: what it reads, what its logits mean, and whose layers are in it."""

from pathlib import Path
from typing import Any

from llm4seg.inference.grid_logits import has_softmax
from llm4seg.models.saved import needs_layers, read_data, read_metadata
from llm4seg.objectives.losses import out_channels
from llm4seg.utils.errors import InputError

INPUT, OUTPUT = "images", "logits"


def describe_export(folder: Path) -> dict[str, Any]:
    """All that it takes to use the network of a trained model's folder without this package.

    `input` and `output`: names, shapes and dtypes of its one argument and its result, N being any number of images;
    `activation` of the logits: softmax, the background's first, or sigmoid; `preprocessing` and `labels`: as in
    model.json; `llm`: the LLM whose layers are inside, with its license, or null.
    Raises InputError for a checkpoint that does not record what its images were resized to.
    """
    description, section = read_metadata(folder)
    preprocessing, scheme = read_data(folder)
    if preprocessing.size is None:
        raise InputError(f"{folder}: found no data.size in model.json, allowed: a model with one, since it is exported")
    channels = out_channels(description["config"]["training"]["loss"], scheme)
    softmax = has_softmax(channels, scheme)
    return {
        "input": _tensor(INPUT, preprocessing.channels, preprocessing.size),
        "output": _tensor(OUTPUT, channels, preprocessing.size),
        "activation": "softmax" if softmax else "sigmoid",
        # volumes at a spacing are cropped whatever `cropped` says, which is of images that are resized
        "preprocessing": preprocessing.plain() | {"cropped": preprocessing.cropped or bool(preprocessing.spacing)},
        "labels": scheme.plain(),
        "trained_on": description["data"]["name"],
        "llm": _llm(description["llm"]) if needs_layers(section) else None,
        "versions": description["versions"],
    }


def _tensor(name: str, channels: int, size: tuple[int, ...]) -> dict[str, Any]:
    return {"name": name, "dtype": "float32", "shape": ["N", channels, *size]}


def _llm(entry: dict[str, Any] | None) -> dict[str, Any]:
    """What of the LLM is inside; null license: unknown."""
    entry = entry or {}
    return {
        "source": entry.get("source"),
        "revision": entry.get("revision"),
        "license": entry.get("licence"),
        "layers": [one["layer"] for one in entry.get("layers", [])],
    }


def license_line(about: dict[str, Any]) -> str:
    """What users must know of the LLM layers that an exported network holds, in one line."""
    llm = about["llm"]
    if llm is None:
        return "holds no layer of an LLM"
    numbers = ", ".join(map(str, llm["layers"]))
    license = llm["license"] or "unknown: look it up before you pass the file on"
    return f"holds layer {numbers} of {llm['source']}; its license: {license}"
