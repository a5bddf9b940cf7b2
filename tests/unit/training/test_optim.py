"""Each schedule ends where it should, and the optimizer is the one asked for."""

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from llm4seg.config.schema import OptimizerConfig
from llm4seg.training.optim import build_host_schedule, build_optimizer, build_schedule, lr_tensor

SECTION = OptimizerConfig(
    name="sgd", lr=0.1, weight_decay=0.01, momentum=0.9, nesterov=False, schedule="constant", clip_norm=None
)


def rates(schedule: str, steps: int = 10) -> list[float]:
    section = SECTION.model_copy(update={"schedule": schedule})
    optimizer = build_optimizer([nn.Parameter(torch.zeros(1))], section)
    scheduler, found = build_schedule(optimizer, section, steps), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(found) < steps:
            scheduler.step()
    return found


def test_constant_stays() -> None:
    assert rates("constant") == [0.1] * 10


def test_onecycle_rises_to_lr_and_falls_to_almost_nothing() -> None:
    found = rates("onecycle")
    assert max(found) == pytest.approx(0.1)
    assert found[0] < 0.01
    assert found[-1] < 1e-5


def test_poly_is_the_papers() -> None:
    assert rates("poly") == pytest.approx([0.1 * (1 - step / 10) ** 0.9 for step in range(10)])


def test_the_last_step_of_a_run_is_allowed_for() -> None:
    """fit steps the schedule after every optimizer step, the last one included."""
    for schedule in ("onecycle", "poly", "constant"):
        section = SECTION.model_copy(update={"schedule": schedule})
        optimizer = build_optimizer([nn.Parameter(torch.zeros(1))], section)
        scheduler = build_schedule(optimizer, section, 3)
        for _ in range(3):
            optimizer.step()
            scheduler.step()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("schedule", ["onecycle", "poly", "constant"])
@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_filled_tensor_does_what_a_number_does(name: str, schedule: str) -> None:
    """By the host's schedule, to the bit: the rate, the weights, and the state to resume from."""
    section = SECTION.model_copy(update={"name": name, "schedule": schedule})
    start = torch.randn(37, generator=torch.Generator().manual_seed(0))
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    rate = lr_tensor(section, torch.device("cpu"))
    filled, plain = build_optimizer([ours], section, rate), build_optimizer([theirs], section)
    on_host, usual = build_host_schedule(section, 6), build_schedule(plain, section, 6)
    for _ in range(6):
        rate.fill_(on_host.get_last_lr()[0])
        ours.grad, theirs.grad = ours.detach().clone(), theirs.detach().clone()
        filled.step()
        plain.step()
        assert torch.equal(ours, theirs)
        on_host.step()
        usual.step()
        assert on_host.get_last_lr() == usual.get_last_lr() == [plain.param_groups[0]["lr"]]
    assert filled.param_groups[0]["lr"] is rate
    assert on_host.state_dict().keys() == usual.state_dict().keys()


def test_adamw_and_sgd() -> None:
    adamw = SECTION.model_copy(update={"name": "adamw"})
    group = build_optimizer([nn.Parameter(torch.zeros(1))], adamw).param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.1, 0.01)
    group = build_optimizer([nn.Parameter(torch.zeros(1))], SECTION).param_groups[0]
    assert (group["momentum"], group["weight_decay"]) == (0.9, 0.01)


def test_nesterov_by_hand() -> None:
    """Velocity v = m v + g, and a step of lr (g + m v), for a gradient that is the parameter: of x^2 / 2."""
    section = SECTION.model_copy(update={"nesterov": True, "weight_decay": 0.0})
    parameter, x, velocity = nn.Parameter(torch.tensor(2.0, dtype=torch.float64)), 2.0, 0.0
    optimizer = build_optimizer([parameter], section)
    for _ in range(3):
        optimizer.zero_grad()
        (parameter**2 / 2).backward()
        optimizer.step()
        velocity = 0.9 * velocity + x
        x -= 0.1 * (x + 0.9 * velocity)
    assert float(parameter.detach()) == pytest.approx(x, rel=1e-12)


def test_nesterov_needs_momentum() -> None:
    plain = SECTION.model_dump() | {"nesterov": True, "momentum": 0.0}
    with pytest.raises(ValidationError, match="nesterov: found true, allowed with momentum: 0: false"):
        OptimizerConfig.model_validate(plain)
    assert OptimizerConfig.model_validate(plain | {"name": "adamw"}).nesterov  # which reads neither
