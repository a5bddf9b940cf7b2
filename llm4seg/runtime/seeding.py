"""Determinism: the random draws of a step, and algorithms that compute the same each time."""

import os

import numpy as np
import torch

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before CUDA starts, or cuBLAS may differ between two runs


def set_deterministic(device: torch.device, tf32: bool = False) -> None:
    """Let this process compute the same on a GPU each time, and in whole float32 unless told that TF32 will do.

    By default cuDNN rounds float32 to TF32's 10 bits, tries which algorithm is faster, and takes some that add up in
    whatever order threads end. Where there is no other algorithm, torch warns.
    """
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.benchmark = False
        torch.backends.cuda.enable_cudnn_sdp(False)  # its attention adds up in any order; the others do not
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs time


def seed_step(seed: int, epoch: int, step: int) -> None:
    """Set torch's generator for one optimizer step, so that a resumed run draws what an undisturbed one draws."""
    torch.manual_seed(int(np.random.default_rng([seed, epoch, step]).integers(2**63)))
