"""Determinism: the seed of each step, and deterministic algorithms."""

import os

import numpy as np
import torch

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before CUDA starts, or cuBLAS may differ between two runs


def set_deterministic(
    device: torch.device, tf32: bool = False, deterministic: bool = True, training: bool = False
) -> None:
    """Choose deterministic algorithms on a GPU, in full float32 unless `tf32`.

    By default cuDNN rounds float32 to TF32's 10 bits, benchmarks algorithms, and uses some whose order of summation
    varies. Where there is no deterministic algorithm, torch raises RuntimeError. In `training` attention has no fused
    kernels, whose backward passes are the ones without an order. Not `deterministic`: any algorithm may run, but cuDNN
    still does not choose by times that it measures, which would differ from run to run.
    """
    if device.type != "cuda":
        return
    fused = not (deterministic and training)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.enable_math_sdp(True)
    torch.backends.cuda.enable_flash_sdp(fused)
    torch.backends.cuda.enable_mem_efficient_sdp(fused)
    torch.backends.cuda.enable_cudnn_sdp(not deterministic)  # its attention adds up in any order, forward too
    torch.use_deterministic_algorithms(deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs time


def seed_step(seed: int, epoch: int, step: int) -> None:
    """Seed torch's generator for one optimizer step, so that a resumed run has the numbers of an uninterrupted one."""
    torch.manual_seed(int(np.random.default_rng([seed, epoch, step]).integers(2**63)))
