"""Examples: the images that the report draws, with the activation maps on both sides of the block."""

from typing import Any

import pandas as pd
import torch
from torch import Tensor

from llm4seg.analysis.images import Piece, class_masks, pieces_of
from llm4seg.analysis.maps import activation, token_mask
from llm4seg.analysis.places import AFTER, BEFORE
from llm4seg.analysis.subject import Subject
from llm4seg.config.schema import Analysis
from llm4seg.data.prepared import Prepared


def chosen_examples(classes: pd.DataFrame, name: str) -> dict[str, dict[str, Any]]:
    """The images with the best, the median and the worst AUROC of a class where features leave the block; of fewer than
    three images, fewer roles.
    """
    own = classes[classes["class"] == name]
    last = AFTER if AFTER in set(own["place"]) else BEFORE
    ranked = own[own["place"] == last].dropna(subset="auroc").sort_values("auroc", ascending=False, kind="stable")
    places = {"best": 0, "median": len(ranked) // 2, "worst": len(ranked) - 1}
    roles = [role for role in places if len(ranked) > {"best": 0, "median": 2, "worst": 1}[role]]
    by_case = own.set_index(["case", "place"])["auroc"]
    found = {}
    for role in roles:
        case = ranked["case"].iloc[places[role]]
        found[role] = {"case": case, **{place: round(float(by_case[case, place]), 4) for place in {BEFORE: 0, last: 0}}}
    return found


def example_pictures(
    subject: Subject, chosen: dict[str, dict[str, Any]], section: Analysis, name: str
) -> dict[str, Tensor]:
    """What the report draws of the chosen images: see `AnalysisResult.examples`; of a volume, the patch and in it the
    slice with most of the class.
    """
    pictures: dict[str, Tensor] = {}
    for role, example in chosen.items():
        piece, drawn_S = _fullest(subject.data, example["case"], name)
        features = subject.features(piece)
        grid, size = features.grids[BEFORE], piece.image.shape[1:]
        mask_S = class_masks(piece.labels, subject.data.scheme, [name])[name]
        own = {"image": piece.image.float(), "mask": drawn_S, "cells": token_mask(mask_S, grid)}
        for place in (BEFORE, AFTER):
            if place in features.tokens:
                own[place] = activation(features.tokens[place], section.activation).reshape(grid).float()
        if len(size) == 3:
            position = int(drawn_S.sum((0, 1)).argmax())
            own = {what: _slice(values, position, size[-1]) for what, values in own.items()}
        for what, values in own.items():
            kept = values.to(torch.uint8) if values.dtype == torch.bool else values
            pictures[f"{role}/{what}"] = kept.contiguous().clone()
    return pictures


def _slice(values: Tensor, position: int, slices: int) -> Tensor:
    """Of an image or a grid, what a slice of the image lies in."""
    return values[..., position * values.shape[-1] // slices]


def _fullest(data: Prepared, case_id: str, name: str) -> tuple[Piece, Tensor]:
    """The piece of a case with most pixels of a class, and these on the grid of the network's input."""
    pieces = list(pieces_of(data, case_id))
    masks = [class_masks(piece.labels, data.scheme, [name])[name] for piece in pieces]
    most = max(range(len(pieces)), key=lambda number: int(masks[number].sum()))
    if data.spacing is None:
        return pieces[most], class_masks(data.resampled(case_id)[1], data.scheme, [name])[name]
    return pieces[most], masks[most]
