"""What kind of array the caller uses: NumPy, torch, or anything with DLPack.

Adding an array library touches this file only.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Array", "Kind", "common_kind", "inspect", "to_numpy"]

_SUPPORTED = "a NumPy array, a torch tensor, or an array that supports DLPack (such as JAX's)"


class Kind(NamedTuple):
    """The array library that results go back to, by the name of its module."""

    module: str

    def wrap(self, array: np.ndarray) -> Any:
        """Return a NumPy array as an array of this kind, without copying where possible."""
        if self.module == "numpy":
            return array
        if self.module == "torch":
            return sys.modules["torch"].from_numpy(array)
        result = importlib.import_module(self.module).from_dlpack(array)
        if array.dtype.kind == "i" and not np.array_equal(np.from_dlpack(result), array):
            raise OverflowError(
                f"{self.module} narrowed 64-bit counts and changed them; enable its 64-bit types."
            )
        return result


NUMPY = Kind("numpy")
TORCH = Kind("torch")


class Array(NamedTuple):
    """An argument, ready for the core: a NumPy array or a DLPack capsule, and its kind."""

    exported: Any
    kind: Kind


def inspect(name: str, value: Any) -> Array:
    """Borrow ``value`` for the core, without copying or casting.

    Raises:
        TypeError: if it is no array, not in CPU memory, or not of a numeric dtype.
    """
    if isinstance(value, np.ndarray):
        return Array(_export_numpy(name, value), NUMPY)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return Array(_export_torch(name, value, torch), TORCH)
    if hasattr(value, "__dlpack__") and not isinstance(value, np.generic):
        return Array(_export_dlpack(name, value), _kind_of(value))
    raise TypeError(f"{name} must be {_SUPPORTED}, got {type(value).__name__}.")


def common_kind(arrays: dict[str, Array]) -> Kind:
    """Return the one kind of the given arguments; mixtures are an error that names them."""
    kinds = {array.kind for array in arrays.values()}
    if len(kinds) > 1:
        listed = ", ".join(f"{name} is {array.kind.module}" for name, array in arrays.items())
        raise TypeError(
            f"All arrays of a call must come from one library, but {listed}; convert them first."
        )
    return kinds.pop()


def to_numpy(value: Any) -> np.ndarray:
    """Return a result of this package (any kind, in CPU memory) as a NumPy array."""
    return value if isinstance(value, np.ndarray) else np.from_dlpack(value)


def _export_numpy(name: str, array: np.ndarray) -> np.ndarray:
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(
            f"{name} is a masked array, whose mask would be ignored; pass {name}.filled(...) and "
            "give the voxels that count as mask=."
        )
    if array.dtype.kind not in "biuf":
        raise TypeError(
            f"{name} must be boolean, integer or floating, got dtype {array.dtype}; convert it "
            f"with {name}.astype(np.float32)."
        )
    itemsize = array.dtype.itemsize
    if not array.flags.aligned or any(stride % itemsize for stride in array.strides):
        return np.array(array, order="C")
    return array


def _export_torch(name: str, tensor: Any, torch: Any) -> Any:
    if type(tensor) is not torch.Tensor:
        tensor = tensor.as_subclass(torch.Tensor)
    if not tensor.is_cpu or tensor.layout is not torch.strided or tensor.is_quantized:
        raise _refused(name, tensor)
    if tensor.requires_grad:
        tensor = tensor.detach()
    if tensor.is_neg():  # a bit that would export the un-negated numbers without an error
        tensor = tensor.resolve_neg()
    return torch.utils.dlpack.to_dlpack(tensor)


def _refused(name: str, tensor: Any) -> TypeError:
    if not tensor.is_cpu:
        return TypeError(
            f"{name} is on device {tensor.device}, but this build scores on the CPU; "
            f"call {name}.cpu() first."
        )
    return TypeError(
        f"{name} must be a dense (strided) tensor, got layout {tensor.layout}"
        f"{' (quantized)' if tensor.is_quantized else ''}; call {name}.to_dense() first."
    )


def _export_dlpack(name: str, value: Any) -> Any:
    device_type, _ = value.__dlpack_device__()
    if int(device_type) != 1:
        raise TypeError(
            f"{name} is on a device of DLPack type {int(device_type)}, but this build scores on "
            "the CPU; copy it to the CPU first."
        )
    try:
        return value.__dlpack__(max_version=(1, 0))
    except TypeError:  # a producer from before DLPack 1.0
        return value.__dlpack__()


def _kind_of(value: Any) -> Kind:
    """Name the module whose ``from_dlpack`` makes arrays like ``value``; NumPy if none does."""
    if hasattr(value, "__array_namespace__"):
        return Kind(value.__array_namespace__().__name__)
    library = type(value).__module__.partition(".")[0]
    return Kind(library) if hasattr(sys.modules.get(library), "from_dlpack") else NUMPY
