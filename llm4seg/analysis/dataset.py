"""Measures of all images together: similarity of places, spectrum of the data set, effective receptive field."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from llm4seg.analysis.images import pieces_of
from llm4seg.analysis.measures import even
from llm4seg.analysis.places import AFTER, BEFORE, Features
from llm4seg.analysis.receptive_field import receptive_field
from llm4seg.analysis.similarity import cka
from llm4seg.analysis.spectrum import dataset_spectrum
from llm4seg.analysis.subject import Subject


@dataclass
class Collected:
    """What is kept of all images for the measures of the data set: at each place some tokens, and each image's mean."""

    most: int  # tokens of an image
    tokens: dict[str, list[Tensor]] = field(default_factory=dict)
    means: dict[str, list[Tensor]] = field(default_factory=dict)

    def add(self, features: Features) -> None:
        grid = features.grids[BEFORE]
        for place, tokens_TD in features.tokens.items():
            if features.grids[place] == grid:  # tokens of other cells, where the block pools, are not comparable
                self.tokens.setdefault(place, []).append(even(tokens_TD, self.most))
            self.means.setdefault(place, []).append(tokens_TD.double().mean(0))


def of_dataset(collected: Collected) -> dict[str, Any]:
    """The measures of all images together, at each place: CKA with `encoder`, and the spectrum of the images' means."""
    found: dict[str, Any] = {}
    means = {place: torch.stack(own) for place, own in collected.means.items()}
    tokens = {place: torch.cat(own) for place, own in collected.tokens.items()}
    for place, means_MD in means.items():
        spectrum = dataset_spectrum(means_MD)
        found[place] = {
            "cka_tokens": _known(cka(tokens[BEFORE], tokens[place])) if place in tokens else None,
            "cka_images": _known(cka(means[BEFORE], means_MD)),
            "entropy": _known(spectrum.entropy),
            "effective_rank": _known(spectrum.effective_rank),
            "lsvr": _known(spectrum.lsvr),
            "images": len(means_MD),
        }
    return found


def _known(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)


def receptive_fields(subject: Subject, case_ids: Sequence[str], has_block: bool) -> dict[str, dict[str, float | None]]:
    """The effective receptive field before and after the block, in pixels of the network's input: the side of the
    square that holds each share of the contributions, in percent. Of volumes in patches, over the first patch of each.
    """
    model = subject.model.eval()
    device = next(model.parameters()).device
    images = [piece.image for case_id in case_ids for piece in islice(pieces_of(subject.data, case_id), 1)]

    def before(image_CS: Tensor) -> Tensor:
        coarsest: Tensor = model.encoder(image_CS[None].float().to(device))[-1]
        return coarsest[0]

    def after(image_CS: Tensor) -> Tensor:
        out: Tensor = model.bottleneck(before(image_CS)[None])
        return out[0]

    if not images:
        return {}
    functions = {BEFORE: before} | ({AFTER: after} if has_block else {})
    return {
        place: {f"{100 * share:.0f}": _known(side) for share, side in receptive_field(function, images).items()}
        for place, function in functions.items()
    }
