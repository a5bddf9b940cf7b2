"""Whether DeepSpeed's op for NVMe can be built here."""

import shutil

import pytest


def needs_nvme() -> None:
    """Skip the test unless it can: the op wants libaio's headers and a C++ compiler."""
    from deepspeed.ops.op_builder import AsyncIOBuilder

    missing = [tool for tool in ("g++", "ninja") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"offload to NVMe needs {' and '.join(missing)}")
    if not AsyncIOBuilder().is_compatible():
        pytest.skip("offload to NVMe needs libaio's headers: apt-get install libaio-dev")
