"""Which layers of which LLM the trainings of a config use."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product

from llm4seg.config.schema import Block, Conditional, Model, Overrides, parse_layers, points

SOURCE, LAYER, BOTTLENECK = "model.llm.source", "model.llm.layer", "model.bottleneck"
Used = tuple[str, Sequence[int]]  # the name of an LLM, and layers of it


def merged(used: Iterable[Used]) -> dict[str, list[int]]:
    """The layers of each LLM, ascending, each once."""
    layers: dict[str, set[int]] = {}
    for name, some in used:
        layers.setdefault(name, set()).update(some)
    return {name: sorted(some) for name, some in layers.items()}


def layers_of_arms(models: Iterable[Model]) -> list[Used]:
    """What the models of a study's arms use: an MLP the width of its LLM, the CNN alone nothing."""
    return [
        (model.llm.source, model.llm.layer if model.bottleneck == "llm" else ())
        for model in models
        if model.bottleneck != "identity"
    ]


def layers_of_search(space: Mapping[str, Conditional], block: Block) -> Iterator[Used]:
    """What the points of a search space use, which have `block`'s LLM and layer where they choose none."""
    for point in _points(space, block):
        bottleneck = point.get(BOTTLENECK, "llm")
        if bottleneck != "identity":
            layers = parse_layers(point.get(LAYER, block.layer))
            yield point.get(SOURCE, block.source), layers if bottleneck == "llm" else ()


def _points(space: Mapping[str, Conditional], block: Block) -> list[Overrides]:
    """The points of the part of a space on which LLM and layer depend."""
    names = {SOURCE, LAYER, BOTTLENECK}
    for name in reversed(list(space)):  # what a condition names stands above it
        if name in names:
            names |= space[name].when.keys()
    every = points({name: one for name, one in space.items() if name in names})
    if every is not None:
        return every
    # a condition on a number between two bounds, or too many points: each LLM with each layer
    chosen = {SOURCE: [block.source], LAYER: [block.layer]}
    chosen |= {name: [*(space[name].values or ())] for name in chosen if name in space}
    return [dict(zip(chosen, values, strict=True)) for values in product(*chosen.values())]
