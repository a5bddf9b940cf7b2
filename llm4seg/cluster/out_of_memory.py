"""What filled a device's memory, in one line that says what to lower."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from llm4seg.utils.errors import InputError

FULL = ("out of memory", "can't allocate memory", "not enough memory", "_ALLOC_FAILED")  # as torch says it, anywhere
HOLDS = {  # which tensors a function makes, the innermost one counts
    "build_model": "weights",
    "build_engine": "weights and the optimizer's state",
    "__call__": "activations",
    "backward": "gradients and recomputed activations",
    "step": "the optimizer's state",
}


@contextmanager
def explained_out_of_memory() -> Iterator[None]:
    """Raise InputError instead of what torch raises when the memory is full."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise out_of_memory(error) from None
        raise


def is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(word in str(error) for word in FULL)


def out_of_memory(error: RuntimeError | MemoryError) -> InputError:
    """What filled the memory, and what to do about it."""
    frames = [frame.name for frame in reversed(traceback.extract_tb(error.__traceback__))]
    tensors = next((HOLDS[name] for name in frames if name in HOLDS), "tensors")
    lines = str(error).splitlines() or ["out of memory"]
    found = next((line for line in lines if any(word in line for word in FULL)), lines[0])
    return InputError(
        f"the device's memory is full, while making {tensors} ({found}); lower training.batch_size or raise "
        "engine.accumulation, set model.llm.checkpointing: true or engine.precision: bf16 for fewer activations, or "
        "engine.zero: 3 with engine.offload: cpu for fewer LLM weights"
    )
