"""The measures of one image at all places, as rows of two tables: by class, and of the tokens alone."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from llm4seg.analysis.attention import attention_statistics
from llm4seg.analysis.maps import activation, token_mask
from llm4seg.analysis.overlap import MEASURES, floors, overlaps
from llm4seg.analysis.places import AFTER, BEFORE, Features
from llm4seg.analysis.probe import Probe, balanced_accuracy
from llm4seg.analysis.similarity import relative_change
from llm4seg.analysis.spectrum import spectrum
from llm4seg.config.schema import Analysis
from llm4seg.data.prepared import Case

Row = dict[str, Any]
OVERLAPS = tuple(MEASURES)
FLOORS = ("everything", "shifted")
PROBE = "probe"
ABOUT = ("case", "group", "volume", "position")
# of an image, class and place; mask_share: of tokens, or with analysis.at: image of pixels
CLASS_MEASURES = (*OVERLAPS, *(f"{name}_{floor}" for name in OVERLAPS for floor in FLOORS), PROBE, "attention_excess")
CLASS_COLUMNS = (*ABOUT, "class", "place", "mask_share", *CLASS_MEASURES)
SPECTRUM = ("entropy", "effective_rank", "lsvr", "share")
ATTENTION = ("distance", "entropy", "first", "own")
TOKEN_MEASURES = (
    *SPECTRUM,
    *(f"centered_{name}" for name in SPECTRUM),
    "change",
    *(f"attention_{name}" for name in ATTENTION),
)
TOKEN_COLUMNS = (*ABOUT, "place", "tokens", "width", *TOKEN_MEASURES)
LINEAR = {2: "bilinear", 3: "trilinear"}
Probes = Mapping[tuple[str, str], Probe]  # by place and class


@dataclass(frozen=True)
class ImageRows:
    """The rows of an image, and of its first class the map of each place (rows, columns, ...) on the token grid."""

    classes: list[Row]
    tokens: list[Row]
    maps: dict[str, Tensor]


def measure_image(
    features: Features, masks: Mapping[str, Tensor], section: Analysis, probes: Probes, seed: int
) -> ImageRows:
    """The rows of one image, or one patch of a volume, without what says which image it is.

    `masks`: of each class at its own resolution; `seed`: of the random shifts. A measure that an image has not, as of a
    class without tokens, is NaN.
    """
    maps = {
        place: activation(tokens_TD, section.activation).reshape(features.grids[place])
        for place, tokens_TD in features.tokens.items()
    }
    by_class = []
    for name, mask_S in masks.items():
        for place, map_G in maps.items():
            mask_G = token_mask(mask_S, features.grids[place])
            row = {"class": name, "place": place, **_overlap(map_G, mask_S, mask_G, section, seed)}
            if (probe := probes.get((place, name))) is not None:
                row[PROBE] = balanced_accuracy(probe(features.tokens[place]), mask_G)
            if (weights_HTT := _attention(features, place)) is not None:
                row["attention_excess"] = attention_statistics(weights_HTT, mask_G.shape, mask_G)["mask_excess"]
            by_class.append(row)
    return ImageRows(by_class, [_tokens(features, place) for place in features.tokens], maps)


def _overlap(map_G: Tensor, mask_S: Tensor, mask_G: Tensor, section: Analysis, seed: int) -> Row:
    """The overlap of a map and a mask, on the token grid or at the mask's resolution, beside its floors."""
    if section.at == "image":
        map_G = functional.interpolate(
            map_G[None, None], tuple(mask_S.shape), mode=LINEAR[mask_S.ndim], align_corners=False
        )[0, 0]
        mask_G = mask_S
    below = floors(map_G, mask_G, section.shifts, seed)
    named = {f"{name}_{floor}": below[name][floor] for name in OVERLAPS for floor in FLOORS}
    return {"mask_share": float(mask_G.double().mean()), **overlaps(map_G, mask_G), **named}


def _tokens(features: Features, place: str) -> Row:
    """The measures of the tokens at a place."""
    tokens_TD = features.tokens[place]
    row: Row = {"place": place, "tokens": tokens_TD.shape[0], "width": tokens_TD.shape[1]}
    for prefix, centered in (("", False), ("centered_", True)):
        found = spectrum(tokens_TD, centered)
        row |= {f"{prefix}{name}": getattr(found, name) for name in SPECTRUM}
    if place == AFTER:
        row["change"] = relative_change(features.tokens[BEFORE], tokens_TD)
    if (weights_HTT := _attention(features, place)) is not None:
        statistics = attention_statistics(weights_HTT, features.grids[place])
        row |= {f"attention_{name}": statistics[name] for name in ATTENTION}
    return row


def _attention(features: Features, place: str) -> Tensor | None:
    """The attention weights of a place that is a layer's attention."""
    weights = {f"layer.{number}.attention": weights_HTT for number, weights_HTT in features.attention.items()}
    return weights.get(place)


def mean_rows(rows: Iterable[Row], keys: Sequence[str]) -> list[Row]:
    """Rows of a case's patches as rows of the case: the mean of each measure over the patches that have it."""
    by_key: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        by_key.setdefault(tuple(row[key] for key in keys), []).append(row)
    return [_mean_row(own, keys) for own in by_key.values()]


def _mean_row(rows: Sequence[Row], keys: Sequence[str]) -> Row:
    if len(rows) == 1:
        return rows[0]
    names = dict.fromkeys(name for row in rows for name in row if name not in keys)
    values = {name: [row[name] for row in rows if not math.isnan(row.get(name, math.nan))] for name in names}
    means = {name: sum(known) / len(known) if known else math.nan for name, known in values.items()}
    return {key: rows[0][key] for key in keys} | means


def about(case: Case) -> Row:
    """What says which image a row is of."""
    return {"case": case.id, "group": case.group, "volume": case.volume, "position": case.position}


def even(tokens_TD: Tensor, most: int) -> Tensor:
    """At most so many tokens, evenly spaced over them."""
    if len(tokens_TD) <= most:
        return tokens_TD
    return tokens_TD[torch.linspace(0, len(tokens_TD) - 1, most).round().long()]
