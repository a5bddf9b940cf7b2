"""Losses and class weights on a CUDA device are those of the CPU."""

import pytest
import torch
from torch import Tensor

from llm4seg.config import Config
from llm4seg.data.label_scheme import IGNORE, LabelScheme
from llm4seg.objectives.losses import Name, build_loss
from tests.tiny import PARAMS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
SCHEMES = [
    LabelScheme(("a", "b"), ignore=True),
    LabelScheme(("whole", "core"), ((1, 2), (2,)), (1, 2), ignore=True),
]


@pytest.mark.parametrize("scheme", SCHEMES, ids=["classes", "regions"])
@pytest.mark.parametrize("name", ["dice_ce", "dice_focal", "tversky_ce"])
def test_a_loss_and_its_gradient_are_the_cpus(name: Name, scheme: LabelScheme) -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 2 if scheme.regions else 3, 32, 32), torch.randint(0, 3, (2, 32, 32))
    labels[:, :3] = IGNORE
    weights = None if scheme.regions else torch.tensor([0.2, 1.0, 3.0])
    loss = build_loss(name, scheme, Config.load(PARAMS).training, weights)

    def on(device: str) -> tuple[Tensor, Tensor]:
        there = logits.to(device).requires_grad_()
        value = loss(there, labels.to(device))
        return value.detach().cpu(), torch.autograd.grad(value, there)[0].cpu()

    for found, expected in zip(on("cuda"), on("cpu"), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)
