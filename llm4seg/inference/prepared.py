"""Prediction for a case of prepared data: by the network's grid, whatever that is, to the original image's."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from llm4seg.data.prepared import Prepared
from llm4seg.inference.predictor import predict_case


def predict_prepared(model: nn.Module, data: Prepared, case_id: str, overlap: float) -> Tensor:
    """Labels uint8 (*shape) of a case at its original shape, on the CPU.

    Of data with a spacing, logits are computed by sliding windows on the volume's grid, which overlap by a share of the
    patch, and become labels in the part of the original volume that this grid covers; around it, there is background.
    """
    case = data.cases[case_id]
    image_CS, _ = data.resampled(case_id)
    if case.grid is None:
        return predict_case(model, image_CS, case.shape, data.scheme)
    inner = [high - low for low, high in case.grid.crop]
    labels_S = predict_case(model, image_CS, inner, data.scheme, data.size, overlap)
    return in_place(labels_S, case.grid.crop, case.shape)


def in_place(values_S: Tensor, box: Sequence[tuple[int, int]], shape: Sequence[int]) -> Tensor:
    """Values of a box of a volume, where they belong in the whole volume; 0 around it."""
    whole_S = torch.zeros(tuple(shape), dtype=values_S.dtype)
    whole_S[tuple(slice(low, high) for low, high in box)] = values_S
    return whole_S
