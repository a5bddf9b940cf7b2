"""The analysis of a trained model's features on one part of the split: rows of each image, and their summary."""

import zlib
from collections.abc import Sequence

import pandas as pd
import torch
from tqdm import tqdm

from llm4seg.analysis.dataset import Collected, of_dataset, receptive_fields
from llm4seg.analysis.examples import chosen_examples, example_pictures
from llm4seg.analysis.fitted_probes import fit_probes
from llm4seg.analysis.images import chosen_classes, class_masks, pieces_of
from llm4seg.analysis.measures import CLASS_COLUMNS, TOKEN_COLUMNS, Probes, Row, about, mean_rows, measure_image
from llm4seg.analysis.places import AFTER
from llm4seg.analysis.results import AnalysisResult
from llm4seg.analysis.subject import Subject
from llm4seg.analysis.summary import summarize
from llm4seg.config.schema import Analysis, Evaluation
from llm4seg.data.split import Split
from llm4seg.utils.errors import InputError
from llm4seg.utils.logs import bars_off

MOST_TOKENS = 4096  # of all images together, for CKA over tokens


def analyze(
    subject: Subject, split: Split, section: Analysis, evaluation: Evaluation, title: str | None = "analyze"
) -> AnalysisResult:
    """Measure the features of a model on `analysis.part`, one image at a time, in evaluation mode and float32.

    `title`: of a progress bar. Raises InputError for a part without cases, and for classes that the data have not.
    """
    case_ids = getattr(split, section.part)
    if not case_ids:
        raise InputError(f"analysis.part: found {section.part}, which has no case in the split")
    classes = chosen_classes(subject.data.scheme, section.classes)
    probes, no_probe = fit_probes(subject, split.train, section, classes)
    rows, token_rows, collected = measure(subject, case_ids, section, classes, probes, evaluation.seed, title)
    table = pd.DataFrame(rows).reindex(columns=[*CLASS_COLUMNS])
    tokens = pd.DataFrame(token_rows).reindex(columns=[*TOKEN_COLUMNS])
    summary = {
        "part": section.part,
        "activation": section.activation,
        "at": section.at,
        "shifts": section.shifts,
        "in_patches": subject.data.spacing is not None,
        **summarize(table, tokens, classes, subject.units(case_ids), evaluation),
        "no_probe": no_probe,
        "dataset": of_dataset(collected),
        "receptive_field": receptive_fields(subject, case_ids[: section.field_cases], AFTER in collected.means),
        "examples": chosen_examples(table, classes[0]),
    }
    pictures = example_pictures(subject, summary["examples"], section, classes[0])
    means = {place: torch.stack(own) for place, own in collected.means.items()}
    return AnalysisResult(summary, table, tokens, pictures, means)


def measure(
    subject: Subject,
    case_ids: Sequence[str],
    section: Analysis,
    classes: Sequence[str],
    probes: Probes,
    seed: int,
    title: str | None,
) -> tuple[list[Row], list[Row], Collected]:
    """The rows of cases by class, those of their tokens, and what the measures of all images together need."""
    data, collected = subject.data, Collected(max(1, MOST_TOKENS // len(case_ids)))
    by_class: list[Row] = []
    by_place: list[Row] = []
    for case_id in tqdm(case_ids, desc=title, unit="image", disable=bars_off() if title else True):
        rows: list[Row] = []
        token_rows: list[Row] = []
        for number, piece in enumerate(pieces_of(data, case_id)):
            features = subject.features(piece)
            masks = class_masks(piece.labels, data.scheme, classes)
            found = measure_image(features, masks, section, probes, _seed(seed, case_id, number))
            rows += found.classes
            token_rows += found.tokens
            collected.add(features)
        case = about(data.cases[case_id])
        by_class += [case | row for row in mean_rows(rows, ("class", "place"))]
        by_place += [case | row for row in mean_rows(token_rows, ("place",))]
    return by_class, by_place, collected


def _seed(seed: int, case_id: str, number: int) -> int:
    """A seed of each image's own, so that its shifts do not depend on which others are measured."""
    return zlib.crc32(f"{seed} {case_id} {number}".encode())
