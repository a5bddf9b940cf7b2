"""torch's private names, for which there are no public ones: modes that see each call, nested arguments, schemas."""

from typing import Any

from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["HOST_WAITS", "FakeTensorMode", "TorchDispatchMode", "is_view", "tree_leaves", "tree_map"]

# calls of aten after which the host waits for the device, which a CUDA graph's recording refuses
HOST_WAITS = frozenset(
    "_local_scalar_dense _unique2 bincount equal is_nonzero item masked_select nonzero unique".split()  # noqa: SIM905
)


def is_view(function: Any) -> bool:
    """Whether what a call of aten returns is all views of its arguments, by its schema."""
    results = function._schema.returns
    return bool(results) and all(one.alias_info is not None and not one.alias_info.is_write for one in results)
