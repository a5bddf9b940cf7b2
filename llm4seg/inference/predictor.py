"""Prediction for one image: from the resampled array to labels at the image's own resolution."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from llm4seg.data.label_scheme import LabelScheme
from llm4seg.objectives.losses import labels_from_logits

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def resample(values_NCS: Tensor, shape: Sequence[int]) -> Tensor:
    """Linear interpolation to another spatial shape; pixels are areas, so corners do not align."""
    return functional.interpolate(values_NCS, tuple(shape), mode=LINEAR[len(shape)], align_corners=False)


@torch.inference_mode()
def predict_case(model: nn.Module, image_CS: Tensor, shape: Sequence[int], scheme: LabelScheme | None = None) -> Tensor:
    """Labels uint8 (*shape) of one normalized image (C, *size), on the CPU; `scheme` as in `labels_from_logits`.

    Logits are computed at `size` and resampled to `shape` before they become labels: borders are smoother than those
    of resampled labels. The model is set to evaluation mode and runs on the device of its weights.
    """
    model.eval()
    device = next(model.parameters()).device
    logits_NKS = model(image_CS[None].to(device))
    return labels_from_logits(resample(logits_NKS.float(), shape), scheme)[0].cpu()
