"""Parameters in one tensor: the same values and gradients, whatever lies between them."""

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from llm4seg.training.engines.flat import FlatParameters


def network() -> nn.Sequential:
    """Of tensors whose sizes no unit divides."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 5, 1))


def loss(model: nn.Module) -> torch.Tensor:
    images = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return model(images).square().mean()


@pytest.mark.parametrize("unit", [1, 64])
def test_parameters_are_views_of_one(unit: int) -> None:
    model, twin = network(), network()
    flat = FlatParameters(model.parameters(), unit)
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), twin.parameters(), strict=True))
    starts = [parameter.storage_offset() for parameter in model.parameters()]
    assert [start % unit for start in starts] == [0] * len(starts)
    assert {one.untyped_storage().data_ptr() for one in [*model.parameters(), flat.parameter]} == {
        flat.parameter.untyped_storage().data_ptr()
    }
    with torch.no_grad():
        flat.parameter.fill_(3)
    assert all((parameter == 3).all() for parameter in model.parameters())


@pytest.mark.parametrize("unit", [1, 64])
def test_gradients_and_steps_are_those_of_the_parameters(unit: int) -> None:
    """Of a step of AdamW, whose entries in between the parameters stay zero."""
    model, twin = network(), network()
    flat = FlatParameters(model.parameters(), unit)
    ours, theirs = AdamW([flat.parameter], weight_decay=0.1), AdamW(twin.parameters(), weight_decay=0.1)
    for _ in range(3):
        loss(model).backward()
        loss(twin).backward()
        gradients = flat.collect_gradients()
        assert all(parameter.grad is None for parameter in model.parameters())
        for found, parameter in zip(flat.views(gradients), twin.parameters(), strict=True):
            assert parameter.grad is not None
            assert torch.equal(found, parameter.grad)
        ours.step()
        theirs.step()
        theirs.zero_grad()
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), twin.parameters(), strict=True))
    between = flat.parameter.detach().clone()
    for view in flat.views(between):
        view.zero_()
    assert not between.any()


def test_a_parameter_without_a_gradient_has_one_of_zeros() -> None:
    used, unused = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))
    flat = FlatParameters([used, unused])
    used.sum().backward()
    assert flat.collect_gradients().tolist() == [1, 1, 1, 0, 0, 0]  # of an even length
