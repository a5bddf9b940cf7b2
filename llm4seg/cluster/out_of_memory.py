"""Out of memory: an InputError of one line with the tensors that filled a device, and the parameters to lower."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from llm4seg.utils.errors import InputError

FULL = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "_ALLOC_FAILED",
)  # in torch's messages, on any device
HOLDS = {  # the tensors that a function allocates; the innermost function counts
    "build_model": "weights",
    "build_engine": "weights and the optimizer's state",
    "__call__": "activations",
    "backward": "gradients and recomputed activations",
    "step": "the optimizer's state",
}


@contextmanager
def explained_out_of_memory() -> Iterator[None]:
    """Turn torch's errors of a full memory into an InputError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise out_of_memory(error) from None
        raise


def is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(word in str(error) for word in FULL)


def out_of_memory(error: RuntimeError | MemoryError) -> InputError:
    """The InputError for a full memory: the tensors that filled it, and the parameters to change."""
    frames = [frame.name for frame in reversed(traceback.extract_tb(error.__traceback__))]
    tensors = next((HOLDS[name] for name in frames if name in HOLDS), "tensors")
    lines = str(error).splitlines() or ["out of memory"]
    found = next((line for line in lines if any(word in line for word in FULL)), lines[0])
    return InputError(
        f"the device's memory is full, while making {tensors} ({found}); lower training.batch_size or raise "
        "engine.accumulation, set model.llm.checkpointing: true or engine.precision: bf16 for fewer activations, or "
        "engine.zero: 3 with engine.offload: cpu for fewer LLM weights"
    )
