"""A training step's launches on a GPU, counted on meta tensors, and that each operation is deterministic there."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from llm4seg.config import Config
from llm4seg.config.schema import Model
from llm4seg.data.label_scheme import IGNORE, LabelScheme
from llm4seg.llm.store import LayerStore
from llm4seg.models import build_model
from llm4seg.objectives.losses import build_loss
from llm4seg.objectives.metrics import class_counts, compared_counts
from llm4seg.runtime.batchnorm import GlobalBatchNorm
from llm4seg.runtime.determinism import check_deterministic
from llm4seg.utils.errors import InputError
from tests.benchmarks.launches import (
    BUDGET,
    PARAMS,
    STEP_BUDGET,
    Trace,
    count_default,
    counted_host_tensors,
    default_step_config,
    gpu_settings,
    on_meta,
    trace_steps,
)
from tests.tiny_llm import block_section, tiny_store
from tests.unit.models.test_backbones import SMALL, size
from tests.worker_group import on_group

# those that raise on CUDA by the documentation of torch.use_deterministic_algorithms, under aten's names
REFUSED = frozenset(
    [
        *("avg_pool3d_backward", "_adaptive_avg_pool2d_backward", "_adaptive_avg_pool3d_backward"),
        *("adaptive_max_pool2d_backward", "adaptive_max_pool3d_backward"),
        *("fractional_max_pool2d_backward", "fractional_max_pool3d_backward", "max_unpool2d", "max_unpool3d"),
        *("upsample_linear1d_backward", "upsample_bilinear2d_backward", "upsample_trilinear3d_backward"),
        *("upsample_bicubic2d_backward", "_upsample_bilinear2d_aa_backward", "_upsample_bicubic2d_aa_backward"),
        *("reflection_pad1d_backward", "reflection_pad2d_backward", "reflection_pad3d_backward"),
        *("nll_loss_forward", "nll_loss_backward", "nll_loss2d_forward", "nll_loss2d_backward"),
        *("_ctc_loss_backward", "_embedding_bag", "_embedding_bag_backward", "put", "put_", "histc", "kthvalue"),
        *("median", "grid_sampler_2d_backward", "grid_sampler_3d_backward", "cumsum", "scatter_reduce"),
        # attention's fused kernels, whose backward passes have no order
        *("_scaled_dot_product_flash_attention", "_scaled_dot_product_efficient_attention"),
        *("_scaled_dot_product_cudnn_attention", "_scaled_dot_product_flash_attention_for_cpu"),
    ]
)
LOSSES = ("dice_ce", "dice_focal", "tversky_ce", "bce_dice")


@pytest.fixture(scope="module")
def params() -> Config:
    return Config.load(PARAMS)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LayerStore:
    return tiny_store(tmp_path_factory.mktemp("llm"))


def test_the_default_stays_within_its_budget_and_waits_for_nothing(tmp_path: Path) -> None:
    trace = count_default(tmp_path)
    assert trace.launches().total() <= BUDGET
    assert not trace.syncs()
    assert not {name for _, name in trace.launches()} & REFUSED


def test_steps_are_the_same_work_at_the_same_addresses(tmp_path: Path) -> None:
    """So that a CUDA graph of one step is that of all."""
    found = trace_steps(default_step_config(tmp_path / "workspace"), tmp_path / "run")
    assert len(found.traces) > 2
    assert found.traces[-1].launches().total() <= STEP_BUDGET
    assert not found.traces[-1].syncs()
    assert not found.host_tensors[-1]
    assert found.differing() == []


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", SMALL)
def test_a_step_of_each_backbone_is_deterministic_on_a_gpu(
    params: Config, store: LayerStore, name: str, dims: int
) -> None:
    section = {"backbone": name, name.replace("-", "_").replace("++", "_plus_plus"): SMALL[name]}
    values = params.model.model_dump() | {"llm": block_section(pool=2 if dims == 3 else 1).model_dump()} | section
    side = tuple(2 * one for one in size(name, dims))
    model = build_model(
        Model.model_validate(values), store, spatial_dims=dims, in_channels=2, out_channels=3, seed=0, size=side
    )
    trace = Trace()
    with gpu_settings(model, params):
        on_meta(model, build_loss("dice_ce"), trace, side, channels=2)
    assert trace.calls
    assert not {called for _, called in trace.launches()} & REFUSED
    assert not trace.syncs()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("kind", ["classes", "regions", "ignored", "weighted"])
def test_each_loss_is_deterministic_and_copies_nothing_from_the_host(params: Config, name: Any, kind: str) -> None:
    one = name == "bce_dice"
    regions = (((1, 2),) if one else ((1, 2), (2,))) if kind == "regions" else ()
    scheme = LabelScheme(("a",) if one else ("a", "b"), regions, (1, 2)[: len(regions)], kind == "ignored")
    weights = torch.ones(3) if kind == "weighted" and not one else None
    loss = build_loss(name, scheme, params.training, weights)
    channels = 1 if one else 2 if kind == "regions" else 3
    logits = torch.randn(2, channels, 4, 5, requires_grad=True)
    labels = torch.randint(0, 2, (2, 4, 5))
    labels[0, 0, 0] = IGNORE if kind == "ignored" else 1
    with counted_host_tensors() as host_tensors, Trace() as trace:
        loss(logits, labels).backward()
    assert not host_tensors
    assert not {called for _, called in trace.launches()} & REFUSED
    assert not trace.syncs()


def test_counts_of_a_gpu_are_those_of_the_cpu() -> None:
    predicted, labels = torch.randint(0, 4, (2, 3, 9, 7)), torch.randint(0, 4, (2, 3, 9, 7))
    with Trace() as trace:
        found = compared_counts(predicted, labels, 3)
    assert torch.equal(found, class_counts(predicted, labels, 3))
    assert found.dtype == torch.int64
    assert not trace.syncs()


def test_a_layer_without_a_deterministic_gradient_is_refused_by_name() -> None:
    pool_to_one, fine = nn.AdaptiveAvgPool2d(1), nn.Upsample(scale_factor=2, mode="bilinear")
    check_deterministic(nn.Sequential(pool_to_one, fine, nn.Conv2d(1, 1, 1), nn.AvgPool2d(2)))
    for layer in (nn.AdaptiveAvgPool2d((2, 2)), nn.AvgPool3d(2), nn.Conv2d(1, 1, 3, padding_mode="reflect")):
        with pytest.raises(InputError, match=r"^engine.deterministic: found true, allowed on a GPU .* 0\.1, a "):
            check_deterministic(nn.Sequential(nn.Sequential(fine, layer)))


def norm_on_a_share(rank: int) -> tuple[list[str], int, int]:
    norm, features = GlobalBatchNorm(4), torch.randn(2, 4, 5, 6, requires_grad=True)
    with counted_host_tensors() as host_tensors, Trace() as trace:
        norm(features).sum().backward()
    reduced = sum(name == "allreduce_" for _, name, _ in trace.calls)
    return list(trace.syncs()), host_tensors.total(), reduced


def test_norms_of_several_workers_wait_for_no_device() -> None:
    """One all-reduce forward and one backward."""
    assert on_group(2, norm_on_a_share) == [([], 0, 2)] * 2
