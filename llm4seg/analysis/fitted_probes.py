"""Probes fitted on the tokens of the training part, of each class before and after the block."""

from collections.abc import Sequence

from torch import Tensor

from llm4seg.analysis.images import class_masks, pieces_of
from llm4seg.analysis.maps import token_mask
from llm4seg.analysis.measures import Probes
from llm4seg.analysis.places import AFTER, BEFORE, Features
from llm4seg.analysis.probe import FOLDS, Moments, Probe, deal_folds, fit_probe
from llm4seg.analysis.subject import Subject
from llm4seg.config.schema import Analysis


def fit_probes(
    subject: Subject, train: Sequence[str], section: Analysis, classes: Sequence[str]
) -> tuple[Probes, dict[str, str]]:
    """A probe of each class before and after the block, fitted on cases of the training part; and why one is missing.

    Of more cases than `analysis.probe_cases`, evenly spaced ones. Folds that choose the penalty keep units together.
    """
    if not section.probe_cases:
        return {}, {}
    chosen = evenly(train, section.probe_cases)
    units = subject.units(chosen).by_case
    try:
        folds = deal_folds(units[case_id] for case_id in chosen)
    except ValueError as error:
        return {}, dict.fromkeys(classes, f"training part: {error}")
    moments: dict[tuple[str, str], Moments] = {}
    for case_id in chosen:
        for piece in pieces_of(subject.data, case_id):
            masks = class_masks(piece.labels, subject.data.scheme, classes)
            _add(moments, subject.features(piece), masks, folds[units[case_id]])
    probes: dict[tuple[str, str], Probe] = {}
    missing: dict[str, str] = {}
    for (place, name), found in moments.items():
        try:
            probes[place, name] = fit_probe(found)
        except ValueError as error:
            missing[name] = f"training part: {error}"
    return probes, missing


def evenly(names: Sequence[str], most: int) -> list[str]:
    """At most so many of the names, evenly spaced over them."""
    count = min(most, len(names))
    return [names[place * len(names) // count] for place in range(count)]


def _add(moments: dict[tuple[str, str], Moments], features: Features, masks: dict[str, Tensor], fold: int) -> None:
    """Add the tokens of an image on both sides of the block, with the mask of each class."""
    for place in (BEFORE, AFTER):
        if place not in features.tokens:
            continue
        tokens_TD = features.tokens[place]
        for name, mask_S in masks.items():
            own = moments.setdefault((place, name), Moments(tokens_TD.shape[1], FOLDS))
            own.add(tokens_TD, token_mask(mask_S, features.grids[place]), fold)
