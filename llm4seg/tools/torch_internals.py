"""torch's private names, for which there are no public ones: fake tensors, and the identity of a storage."""

from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

__all__ = ["FakeTensorMode", "storage_id"]


def storage_id(tensor: Tensor) -> int:
    """A number that only tensors of the same memory share; unlike data_ptr, also where there is none."""
    return tensor.untyped_storage()._cdata
