"""torch's private modules, for which there are no public ones: modes that see each call, nested arguments."""

from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["FakeTensorMode", "TorchDispatchMode", "tree_leaves", "tree_map"]
