"""What makes two runs draw and compute the same."""

from collections.abc import Iterator

import pytest
import torch

from llm4seg.runtime.seeding import seed_step, set_deterministic

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def as_it_was() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.allow_tf32 = True
    for enable in (
        torch.backends.cuda.enable_cudnn_sdp,
        torch.backends.cuda.enable_flash_sdp,
        torch.backends.cuda.enable_mem_efficient_sdp,
    ):
        enable(True)


@pytest.mark.usefixtures("as_it_was")
def test_float32_is_float32_on_a_gpu_and_the_same_each_time() -> None:
    set_deterministic(CPU)
    assert not torch.are_deterministic_algorithms_enabled()
    set_deterministic(CUDA)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    assert not torch.backends.cudnn.allow_tf32
    set_deterministic(CUDA, tf32=True)
    assert torch.backends.cudnn.allow_tf32


def attention() -> tuple[bool, bool, bool, bool]:
    """Whether attention may take its flash, memory-efficient, cuDNN and plain kernels."""
    cuda = torch.backends.cuda
    return cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled(), cuda.cudnn_sdp_enabled(), cuda.math_sdp_enabled()


@pytest.mark.usefixtures("as_it_was")
def test_what_has_no_order_is_refused_and_attention_is_plain_in_training() -> None:
    set_deterministic(CUDA, training=True)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert attention() == (False, False, False, True)
    set_deterministic(CUDA)  # a prediction after the training
    assert attention() == (True, True, False, True)
    set_deterministic(CUDA, deterministic=False, training=True)
    assert attention() == (True, True, True, True)
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark


def test_a_step_draws_the_same_whatever_came_before_it() -> None:
    def drawn(seed: int, epoch: int, step: int) -> float:
        seed_step(seed, epoch, step)
        return float(torch.rand(()))

    first = drawn(0, 1, 2)
    others = [drawn(1, 1, 2), drawn(0, 2, 2), drawn(0, 1, 3), drawn(0, 2, 1)]
    assert first not in others
    assert drawn(0, 1, 2) == first
