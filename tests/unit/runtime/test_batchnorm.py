"""BatchNorm over workers is torch's BatchNorm of the whole batch: outputs, gradients and running statistics."""

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from llm4seg.runtime.batchnorm import GlobalBatchNorm, convert_batchnorm, count_batches
from tests.worker_group import on_group

SHARES = (1, 3, 2)  # samples of each worker
CASES: dict[str, dict[str, Any]] = {
    "float64": {"dtype": torch.float64, "bound": 1e-12},
    "float32": {"dtype": torch.float32, "bound": 1e-5},
    "3-D": {"dtype": torch.float64, "bound": 1e-12, "size": (3, 4, 5)},
    "channels last": {"dtype": torch.float64, "bound": 1e-12, "channels_last": True},
    "means far from zero": {"dtype": torch.float32, "bound": 1e-4, "mean": 1000.0},  # float32 has 6e-5 at 1000
}


def two_steps(
    norm: nn.Module, images: Tensor, weights: Tensor, share: slice, channels_last: bool = False
) -> dict[str, Tensor]:
    """Two steps in training on a share of a batch, one in evaluation; gradients of a weighted sum of the outputs."""
    mine = images[share].clone()
    if channels_last:
        mine = mine.to(memory_format=torch.channels_last)
    mine.requires_grad_()
    outputs = [norm(mine), norm(mine * 2)]
    sum((output * weights[share]).sum() for output in outputs).backward()
    norm.eval()
    count_batches(norm, 2)  # torch's own counts by itself
    found = {"first": outputs[0], "second": outputs[1], "evaluated": norm(mine), "images' gradient": mine.grad}
    return {name: tensor.detach() for name, tensor in found.items()}


def make(
    kind: Any, dtype: torch.dtype, size: tuple[int, ...] = (5, 6), mean: float = 1.0, **_: Any
) -> tuple[Any, Tensor, Tensor]:
    torch.manual_seed(0)
    norm = kind(4).to(dtype)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    images = (torch.randn(sum(SHARES), 4, *size, dtype=torch.float64) * 3 + mean).to(dtype)
    return norm, images, torch.randn(images.shape, dtype=torch.float64).to(dtype)


def statistics_and_gradients(norm: Any) -> dict[str, Tensor]:
    return dict(norm.named_buffers()) | {f"{name}'s gradient": one.grad for name, one in norm.named_parameters()}


def on_a_share(rank: int, cases: dict[str, dict[str, Any]]) -> dict[str, dict[str, Tensor]]:
    found = {}
    for name, case in cases.items():
        norm, images, weights = make(GlobalBatchNorm, **case)
        start = sum(SHARES[:rank])
        share = slice(start, start + SHARES[rank])
        found[name] = two_steps(norm, images, weights, share, case.get("channels_last", False))
        for parameter in norm.parameters():
            dist.all_reduce(parameter.grad)
        found[name] |= statistics_and_gradients(norm)
    return found


@pytest.fixture(scope="module")
def on_workers() -> list[dict[str, dict[str, Tensor]]]:
    return on_group(len(SHARES), on_a_share, CASES)


@pytest.mark.parametrize("name", CASES)
def test_three_workers_with_unequal_shares_compute_what_one_does(on_workers: Any, name: str) -> None:
    """In float64 to its rounding; float32 is compared with the same numbers normalized in float64."""
    case = CASES[name]
    norm, images, weights = make(nn.BatchNorm3d if "size" in case else nn.BatchNorm2d, **case)
    norm, images, weights = norm.double(), images.double(), weights.double()
    expected = two_steps(norm, images, weights, slice(None)) | statistics_and_gradients(norm)
    for tensor_name, whole in expected.items():
        parts = [one[name][tensor_name].to(whole.dtype) for one in on_workers]
        for found in [torch.cat(parts)] if whole.shape == images.shape else parts:
            assert torch.allclose(found, whole, rtol=case["bound"], atol=case["bound"]), tensor_name


def layout_and_precision(rank: int) -> tuple[bool, torch.dtype]:
    norm = GlobalBatchNorm(4)
    images = torch.randn(2, 4, 5, 6).to(torch.bfloat16, memory_format=torch.channels_last)
    normalized = norm(images)
    return normalized.is_contiguous(memory_format=torch.channels_last), normalized.dtype


def test_layout_and_precision_stay() -> None:
    assert on_group(2, layout_and_precision) == [(True, torch.bfloat16)] * 2


def test_one_worker_computes_the_bits_of_torchs_own() -> None:
    found, expected = (
        two_steps(norm, images, weights, slice(None)) | statistics_and_gradients(norm)
        for norm, images, weights in (make(kind, torch.float32) for kind in (GlobalBatchNorm, nn.BatchNorm2d))
    )
    assert found.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


class NormAndActivation(nn.BatchNorm2d):
    """As in timm: a norm that goes on to an activation of its own."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.act = nn.ReLU()

    def forward(self, features_NCHW: Tensor) -> Tensor:
        activated: Tensor = self.act(super().forward(features_NCHW))
        return activated


def test_a_models_norms_are_converted_in_place() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.Sequential(nn.BatchNorm2d(4, eps=1e-3, momentum=0.2)), NormAndActivation(4)
    )
    images, state = torch.randn(2, 3, 5, 6), {name: one.clone() for name, one in model.state_dict().items()}
    parameters = list(model.parameters())
    model.eval()
    before = model(images)
    convert_batchnorm(model)
    first, second = model[1][0], model[2]  # type: ignore[index]
    assert isinstance(first, GlobalBatchNorm)
    assert isinstance(second, GlobalBatchNorm)
    assert (first.eps, first.momentum, first.training) == (1e-3, 0.2, False)
    assert torch.equal(model(images), before)
    assert model.state_dict().keys() == state.keys()
    assert all(one is other for one, other in zip(model.parameters(), parameters, strict=True))
