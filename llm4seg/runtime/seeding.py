"""Determinism: the seed of each step, and deterministic algorithms."""

import os

import numpy as np
import torch

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before CUDA starts, or cuBLAS may differ between two runs


def set_deterministic(device: torch.device, tf32: bool = False) -> None:
    """Choose deterministic algorithms on a GPU, in full float32 unless `tf32`.

    By default cuDNN rounds float32 to TF32's 10 bits, benchmarks algorithms, and uses some whose order of summation
    varies. Where there is no deterministic algorithm, torch warns.
    """
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.benchmark = False
        torch.backends.cuda.enable_cudnn_sdp(False)  # its attention adds up in any order; the others do not
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs time


def seed_step(seed: int, epoch: int, step: int) -> None:
    """Seed torch's generator for one optimizer step, so that a resumed run has the numbers of an uninterrupted one."""
    torch.manual_seed(int(np.random.default_rng([seed, epoch, step]).integers(2**63)))
