"""Which layers of which LLM the trainings of a config use."""

from collections.abc import Iterable, Mapping

from llm4seg.config.schema import Block, Conditional, Overrides, parse_layers, points

SOURCE, LAYER, BOTTLENECK = "model.llm.source", "model.llm.layer", "model.bottleneck"
NAMES = (SOURCE, LAYER, BOTTLENECK)


def layers_of(block: Block, trainings: Iterable[Overrides]) -> dict[str, list[int]]:
    """The layers of each LLM that trainings use, ascending; `trainings`: what each changes of NAMES.

    Where a training changes nothing, it has the LLM and layer of `block`, and a bottleneck with layers in it. An MLP
    uses the width of its LLM and no layers, the CNN alone no LLM.
    """
    layers: dict[str, set[int]] = {}
    for changes in trainings:
        bottleneck = changes.get(BOTTLENECK, "llm")
        if bottleneck != "identity":
            used = layers.setdefault(changes.get(SOURCE, block.source), set())
            used.update(parse_layers(changes.get(LAYER, block.layer)) if bottleneck == "llm" else ())
    return {name: sorted(used) for name, used in layers.items()}


def choices(changes: Overrides) -> Overrides:
    """What overrides change of NAMES, by the dotted name or with a whole section."""
    found: Overrides = {}
    for dotted, value in changes.items():
        for name in NAMES:
            if f"{name}.".startswith(f"{dotted}."):
                parts = name.removeprefix(dotted).split(".")[1:]
                found[name] = value
                for part in parts:
                    found[name] = found[name][part]
    return found


def searched(space: Mapping[str, Conditional], block: Block) -> list[Overrides]:
    """The points of a search space, as far as LLM, layer and bottleneck depend on it."""
    names = set(NAMES)
    for name in reversed(list(space)):  # what a condition names stands above it
        if name in names:
            names |= space[name].when.keys()
    every = points({name: one for name, one in space.items() if name in names})
    if every is not None:
        return every
    # a condition on a number between two bounds, or too many points: each LLM with each layer
    sources = (SOURCE in space and space[SOURCE].values) or [block.source]
    layers = (LAYER in space and space[LAYER].values) or [block.layer]
    return [{SOURCE: source, LAYER: layer} for source in sources for layer in layers]
