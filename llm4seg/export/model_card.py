"""The model card of a trained model, README.md on the hub, from model.json and metrics.json."""

from collections.abc import Iterator
from typing import Any

from llm4seg.config.schema import Model
from llm4seg.data.label_scheme import LabelScheme
from llm4seg.models.saved import needs_layers

METRICS = ("dice", "iou", "precision", "recall", "hd95", "nsd")  # in the order of the table


def model_card(description: dict[str, Any], metrics: dict[str, Any] | None, address: str, license: str | None) -> str:
    """The card, in Markdown with the hub's header; `address`: hf://ORG/NAME, or another one that `load` reads.

    `license`: of the trained weights, as the hub names it; None: the card says that it is not stated.
    """
    header = ["library_name: llm4seg", "pipeline_tag: image-segmentation", "tags: [medical-imaging, segmentation]"]
    header += [f"license: {license}"] if license else []
    lines = ["---", *header, "---", f"# {address.rpartition('/')[2]}", ""]
    lines += [*_data(description), *_metrics(metrics), *_llm(description), *_use(address, license)]
    return "\n".join(lines) + "\n"


def _data(description: dict[str, Any]) -> Iterator[str]:
    data, model = description["data"], description["config"]["model"]
    kind = f"{data['spatial_dims']}-D, {data['channels']} channel{'s' * (data['channels'] > 1)}"
    yield f"Segments medical images ({kind}). Trained with llm4seg {description['versions'].get('llm4seg', '')}: a"
    yield f"{model['backbone']} network, in its bottleneck: {model['bottleneck']}."
    yield "\n## Data and classes\n"
    yield f"- trained on: {data['name']} (sha256 of the prepared data: {data['sha256']})"
    yield f"- reads: {_grid(data)}; intensities: {data['intensity']}"
    scheme = LabelScheme.parse(data)
    for place, name in enumerate(scheme.classes):
        yield f"- {name or f'class {place + 1}'}: {' and '.join(map(str, scheme.covered(place)))} in masks"


def _grid(data: dict[str, Any]) -> str:
    if data["size"] is None:  # of a converted checkpoint
        return "images resized to a size that is not recorded"
    size = " x ".join(map(str, data["size"]))
    if not data.get("spacing"):
        return f"images resized to {size}"
    return f"patches of {size} voxels at {' x '.join(f'{step:g}' for step in data['spacing'])} mm"


def _metrics(metrics: dict[str, Any] | None) -> Iterator[str]:
    yield "\n## Metrics\n"
    if metrics is None:
        yield "None were given."
        return
    yield f"On the {metrics['part']} part: {metrics['cases']} cases in {metrics['groups']} groups. Mean, and in"
    yield f"brackets its {metrics['confidence']:.0%} interval; hd95 in {metrics['distance_unit']}.\n"
    yield f"| class | {' | '.join(METRICS)} |"
    yield f"|---{'|---' * len(METRICS)}|"
    for name, values in ({"mean of classes": metrics} | metrics["classes"]).items():
        yield f"| {name} | {' | '.join(_interval(values.get(metric)) for metric in METRICS)} |"


def _interval(values: dict[str, Any] | None) -> str:
    if not values or values["mean"] is None:
        return "-"
    if values["low"] is None:
        return f"{values['mean']:.3f}"
    return f"{values['mean']:.3f} ({values['low']:.3f} to {values['high']:.3f})"


def _llm(description: dict[str, Any]) -> Iterator[str]:
    yield "\n## LLM\n"
    llm = description["llm"]
    if llm is None:
        yield "Trained without an LLM."
        return
    layers = ", ".join(str(one["layer"]) for one in llm["layers"])
    yield f"Layer {layers} of {llm['source']}, revision {llm['revision'] or 'unknown'}."
    yield f"License of the LLM: {llm['licence'] or 'unknown; look it up at its source'}."
    if needs_layers(Model.model_validate(description["config"]["model"])):
        yield "The layers are not in this repository: they are fetched from their source and verified by sha256."
    else:
        yield "It took part in training alone: prediction needs no layer of it."


def _use(address: str, license: str | None) -> Iterator[str]:
    yield "\n## How to use\n"
    yield f'```python\nimport llm4seg\n\nmask = llm4seg.load("{address}").predict("scan.nii.gz")\n```\n'
    yield "Not a medical device; evaluate it on data of your own before you rely on it."
    if license is None:
        yield "The license of these weights is not stated: ask who published them."
