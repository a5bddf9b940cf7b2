"""torch's private modules, for which there are no public ones: modes that see each call, and nested arguments."""

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

__all__ = ["TorchDispatchMode", "tree_map"]
