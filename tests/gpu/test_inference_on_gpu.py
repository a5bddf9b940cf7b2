"""Sliding windows on CUDA: where the logits are, and that they and the labels do not depend on it."""

import pytest
import torch
from torch import nn

from llm4seg.inference.sliding_window import labels_at, sliding_window_logits

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_logits_on_the_device_and_on_the_host() -> None:
    torch.manual_seed(0)
    network, volume = nn.Conv3d(1, 4, 1).cuda(), torch.rand(1, 20, 17, 9)
    device, host = (sliding_window_logits(network, volume, (8, 8, 8), budget=budget) for budget in (None, 0))
    assert (device.device.type, host.device.type) == ("cuda", "cpu")
    assert torch.allclose(device.cpu(), host, atol=1e-6)
    own = network.cpu()(volume[None])[0].detach()
    assert torch.allclose(host, own, atol=1e-2)  # TF32


def test_labels_are_made_on_the_logits_device() -> None:
    logits = torch.randn(4, 9, 8, 7, device="cuda")
    labels = labels_at(logits, (20, 5, 30))
    assert labels.device.type == "cuda"
    assert (labels.cpu() == labels_at(logits.cpu(), (20, 5, 30))).float().mean() > 0.999
