"""Prediction for a case of prepared data: by the network's grid, whatever that is, to the original image's."""

from torch import Tensor, nn

from llm4seg.data.prepared import Prepared
from llm4seg.inference.grid_logits import NetworkInput
from llm4seg.inference.predictor import Predictor


def predict_prepared(model: nn.Module, data: Prepared, case_id: str, overlap: float) -> Tensor:
    """Labels uint8 (*shape) of a case at its original shape, on the CPU, by one network.

    Of data with a spacing, logits are computed by sliding windows on the volume's grid, which overlap by a share of the
    patch, and become labels in the part of the original volume that this grid covers; around it, there is background.
    """
    return Predictor([model], data.scheme, overlap).labels([network_input(data, case_id)])


def network_input(data: Prepared, case_id: str) -> NetworkInput:
    """A case as a network reads it."""
    case = data.cases[case_id]
    image_CS, _ = data.resampled(case_id)
    if case.grid is None:
        return NetworkInput(image_CS, case.shape)
    return NetworkInput(image_CS, case.shape, case.grid.crop, data.size)
