"""torch's private names, for which it has no public ones: tensors without memory, and what a storage is known by."""

from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

__all__ = ["FakeTensorMode", "storage_id"]


def storage_id(tensor: Tensor) -> int:
    """A number that only tensors of the same memory share; unlike data_ptr, also where there is none."""
    return tensor.untyped_storage()._cdata
