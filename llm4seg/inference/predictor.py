"""Prediction for one image: from the resampled array to labels at the image's own resolution."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from llm4seg.data.label_scheme import LabelScheme
from llm4seg.inference.resample import resample
from llm4seg.inference.sliding_window import labels_at, sliding_window_logits
from llm4seg.objectives.losses import labels_from_logits


@torch.inference_mode()
def predict_case(
    model: nn.Module,
    image_CS: Tensor,
    shape: Sequence[int],
    scheme: LabelScheme | None = None,
    patch: Sequence[int] | None = None,
    overlap: float = 0.5,
) -> Tensor:
    """Labels uint8 (*shape) of one normalized image (C, *size), on the CPU; `scheme` as in `labels_from_logits`.

    Logits are computed at `size`, in windows of the size `patch` if it is given, which overlap by a share of it, and
    resampled to `shape` before they become labels: borders are smoother than those of resampled labels. The model is
    set to evaluation mode and runs on the device of its weights.
    """
    model.eval()
    if patch is not None:
        return labels_at(sliding_window_logits(model, image_CS, patch, overlap), shape, scheme).cpu()
    device = next(model.parameters()).device
    logits_NKS = model(image_CS[None].to(device))
    return labels_from_logits(resample(logits_NKS.float(), shape), scheme)[0].cpu()
