"""Volumes of a 2-D model's slices: which of them are whole, and scores of their slices put together."""

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from llm4seg.data.prepared import MANIFEST, Case, Prepared
from llm4seg.objectives.metrics import Row, case_metrics, overlap


def volume_name(case: Case) -> str:
    """The volume of a slice; a case that is no slice is one of its own."""
    return case.volume or case.id


def by_volume(data: Prepared, case_ids: Sequence[str]) -> dict[str, list[str]]:
    """The cases of each volume; the volumes in the order of their first cases, which may be interleaved."""
    volumes: dict[str, list[str]] = {}
    for case_id in case_ids:
        volumes.setdefault(volume_name(data.cases[case_id]), []).append(case_id)
    return volumes


def are_slices(data: Prepared, case_ids: Sequence[str]) -> bool:
    """Whether any of these cases is a slice of a volume."""
    return any(data.cases[case_id].volume is not None for case_id in case_ids)


def not_whole(data: Prepared, case_ids: Sequence[str]) -> str | None:
    """Why the volumes of these slices cannot be scored, a line; None where each of them is whole."""
    slices = [case for case_id in case_ids if (case := data.cases[case_id]).volume is not None]
    if any(case.volume_slices is None for case in slices):
        return f"{data.folder / MANIFEST} does not say how many slices a volume has: `dvc repro -f prepare` writes it"
    here, of_data = (Counter(case.volume for case in cases) for cases in (slices, data.cases.values()))
    parted = [volume for volume in here if here[volume] < of_data[volume]]
    if not parted:
        return None
    others = f" (the first of {len(parted)} such volumes)" if len(parted) > 1 else ""
    count = of_data[parted[0]] - here[parted[0]]
    return f"{count} of the {of_data[parted[0]]} slices of {parted[0]} are in other parts of the split{others}"


def volume_metrics(data: Prepared, predicted: Mapping[str, Tensor], nsd_tolerance: float) -> list[Row]:
    """`case_metrics` of one volume from the predictions (rows, columns) of all its slices, by case.

    In slices that are no cases nothing is predicted, and nothing is there: `prepare` leaves out what has no labels. A
    volume of one slice is scored in 2-D, as the slice is.
    """
    first = data.cases[next(iter(predicted))]
    references = {case_id: data.original(case_id)[1] for case_id in predicted}
    if first.volume_slices in (None, 1):
        (predicted_S,), (labels_S,), spacing = predicted.values(), references.values(), first.spacing
    else:
        assert first.slice_spacing is not None
        predicted_S, labels_S = (stacked(data, slices) for slices in (predicted, references))
        spacing = (*first.spacing, first.slice_spacing)
    rows = case_metrics(predicted_S, labels_S, data.scheme, spacing, nsd_tolerance)
    return [{"case": volume_name(first), "group": first.group, **row, "distance_unit": first.unit} for row in rows]


def stacked(data: Prepared, slices: Mapping[str, Tensor]) -> Tensor:
    """Labels uint8 (rows, columns, slices) out of slices at their positions; 0 between them."""
    first = data.cases[next(iter(slices))]
    assert first.volume_slices is not None
    volume_S = torch.zeros((*first.shape, first.volume_slices), dtype=torch.uint8)
    for case_id, labels in slices.items():
        volume_S[..., data.cases[case_id].position] = labels
    return volume_S


def add_slices(data: Prepared, rows: Sequence[Row]) -> list[Row]:
    """Rows per volume and class from rows per slice and class: `overlap` of their counts, added."""
    totals: dict[tuple[str, str], Row] = {}
    for row in rows:
        volume = volume_name(data.cases[row["case"]])
        name = {"case": volume, "group": row["group"], "class": row["class"]}
        total = totals.setdefault((volume, row["class"]), {**name, "tp": 0, "fp": 0, "fn": 0})
        for count in ("tp", "fp", "fn"):
            total[count] += row[count]
    return [{**total, **overlap(total["tp"], total["fp"], total["fn"])} for total in totals.values()]
