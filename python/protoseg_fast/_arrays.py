"""What kind of array the caller uses: NumPy, torch, CuPy, or anything with DLPack; and where it is.

Adding an array library touches this file only.
"""

from __future__ import annotations

import functools
import importlib
import sys
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import numpy as np

from protoseg_fast import _core

__all__ = [
    "NUMPY",
    "Array",
    "DeviceMemory",
    "Kind",
    "common_kind",
    "inspect",
    "refuse_masked",
    "to_numpy",
]

_SUPPORTED = (
    "a NumPy array, a torch tensor, or an array that supports DLPack (such as JAX's) or "
    "__cuda_array_interface__ (such as CuPy's)"
)
_DLPACK_CPU, _DLPACK_CUDA, _DLPACK_CUDA_MANAGED = 1, 2, 13


class DeviceMemory(Protocol):
    """Memory, streams and events of one CUDA device, as an array library has them."""

    module: Any
    """With ``where`` and ``concatenate``, as NumPy has them."""

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        """Return an array on the device that nothing was written to."""

    def pointer(self, array: Any) -> int:
        """Return the address of a contiguous array on the device."""

    def keep(self, array: Any) -> Any:
        """Return an array on the device as a contiguous one of `module`."""

    def from_numpy(self, array: np.ndarray) -> Any:
        """Copy to the device."""

    def to_numpy(self, array: Any) -> np.ndarray:
        """Copy from the device, which waits for what is being computed."""

    def current(self) -> AbstractContextManager[Any]:
        """Make the device current."""

    def stream(self) -> int:
        """Return the address of the stream that the library uses now."""

    def record(self) -> Any:
        """Return an event that is complete when what is on the stream now is."""

    def wait(self, event: Any) -> None:
        """Make the stream wait for an event, unless it is complete or a graph is captured."""


class Kind(NamedTuple):
    """The array library that results go back to, by the name of its module, and the device."""

    module: str
    device: str = "cpu"

    def __str__(self) -> str:
        return self.module if self.device == "cpu" else f"{self.module} on {self.device}"

    @property
    def memory(self) -> DeviceMemory:
        """Where results on a CUDA device are put."""
        return _memory(self.module, int(self.device.partition(":")[2]))

    def wrap(self, array: Any) -> Any:
        """Return a result as an array of this kind, without copying where possible.

        ``array``: of NumPy, or already of `memory`.
        """
        if self.device != "cpu":
            return self._wrap_device(array)
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

    def _wrap_device(self, array: Any) -> Any:
        if isinstance(array, np.ndarray):
            array = self.memory.from_numpy(array)
        if self.module in ("torch", "cupy"):
            return array
        convert = getattr(sys.modules.get(self.module), "from_dlpack", None)
        return array if convert is None else convert(array)


NUMPY = Kind("numpy")


class Array(NamedTuple):
    """An argument, ready for the core, and its kind.

    ``exported``: a NumPy array, a DLPack capsule, or (__cuda_array_interface__, its owner).
    """

    exported: Any
    kind: Kind


def inspect(name: str, value: Any) -> Array:
    """Borrow ``value`` for the core, without copying or casting.

    Raises:
        TypeError: if it is no array, not in memory of the CPU or a CUDA device that can be used,
            or not of a numeric dtype.
    """
    if isinstance(value, np.ndarray):
        return Array(_export_numpy(name, value), NUMPY)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return _inspect_torch(name, value, torch)
    if hasattr(value, "__dlpack__") and not isinstance(value, np.generic):
        return _inspect_dlpack(name, value)
    if hasattr(value, "__cuda_array_interface__"):
        return _inspect_cuda_interface(name, value)
    raise TypeError(f"{name} must be {_SUPPORTED}, got {type(value).__name__}.")


def common_kind(arrays: dict[str, Array]) -> Kind:
    """Return the one kind of the given arguments; mixtures are an error that names them."""
    kinds = {array.kind for array in arrays.values()}
    if len(kinds) > 1:
        listed = ", ".join(f"{name} is {array.kind}" for name, array in arrays.items())
        if len({kind.device for kind in kinds}) > 1:
            listed = ", ".join(
                f"{name} is on {array.kind.device}" for name, array in arrays.items()
            )
            raise TypeError(
                f"All arrays of a call must be on one device, but {listed}; move them first."
            )
        raise TypeError(
            f"All arrays of a call must come from one library, but {listed}; convert them first."
        )
    return kinds.pop()


def to_numpy(value: Any) -> np.ndarray:
    """Return a result of this package, of any kind, as a NumPy array; waits for a device."""
    if isinstance(value, np.ndarray):
        return value
    kind = inspect("value", value).kind
    if "bfloat16" in str(getattr(value, "dtype", "")):  # which NumPy does not have
        value = value.float() if kind.module == "torch" else value.astype("float32")
    if kind.device != "cpu":
        return kind.memory.to_numpy(value)
    if kind.module == "torch":  # by DLPack, NumPy 1.24 takes no booleans
        array: np.ndarray = value.detach().resolve_neg().numpy()
        return array
    return np.from_dlpack(value)


def refuse_masked(name: str, array: np.ndarray) -> None:
    """Raise TypeError for a masked array of NumPy, whose mask nothing here would heed."""
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(
            f"{name} is a masked array, whose mask would be ignored; pass {name}.filled(...) and "
            "give the voxels that count as mask=."
        )


def _export_numpy(name: str, array: np.ndarray) -> np.ndarray:
    refuse_masked(name, array)
    if array.dtype.kind not in "biuf":
        raise TypeError(
            f"{name} must be boolean, integer or floating, got dtype {array.dtype}; convert it "
            f"with {name}.astype(np.float32)."
        )
    itemsize = array.dtype.itemsize
    if not array.flags.aligned or any(stride % itemsize for stride in array.strides):
        return np.array(array, order="C")
    return array


def _inspect_torch(name: str, tensor: Any, torch: Any) -> Array:
    transformed = torch._C._are_functorch_transforms_active()
    if transformed and torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        raise TypeError(
            f"{name} is a tensor of a transform of torch.func (vmap, grad, ...), which has no "
            "numbers to read; there, use probability, sa_loss or ProtoSeg, or call this outside."
        )
    if type(tensor) is not torch.Tensor:
        tensor = tensor.as_subclass(torch.Tensor)
    device = "cpu"
    if tensor.is_cuda:
        device = str(tensor.device)
        _require_cuda(name, device, f"call {name}.cpu() first")
    elif not tensor.is_cpu:
        raise TypeError(
            f"{name} is on device {tensor.device}, but scores are computed on the CPU and on CUDA "
            f"devices; call {name}.cpu() first."
        )
    if tensor.layout is not torch.strided or tensor.is_quantized:
        raise TypeError(
            f"{name} must be a dense (strided) tensor, got layout {tensor.layout}"
            f"{' (quantized)' if tensor.is_quantized else ''}; call {name}.to_dense() first."
        )
    if tensor.is_floating_point() and tensor.element_size() == 1:
        raise TypeError(
            f"{name} must be boolean, integer or floating of 16 bits or more, got dtype "
            f"{tensor.dtype}; convert it with {name}.float()."
        )
    if tensor.requires_grad:
        tensor = tensor.detach()
    if tensor.is_neg():  # a bit that would export the un-negated numbers without an error
        tensor = tensor.resolve_neg()
    return Array(torch.utils.dlpack.to_dlpack(tensor), Kind("torch", device))


def _inspect_dlpack(name: str, value: Any) -> Array:
    device_type, index = (int(number) for number in value.__dlpack_device__())
    if device_type in (_DLPACK_CUDA, _DLPACK_CUDA_MANAGED):
        device = f"cuda:{index}"
        _require_cuda(name, device, "copy it to the CPU first")
        kind = _kind_of(value, device)
        # Numbers of DLPack's protocol: 1 is the legacy default stream, whose address is null.
        return Array(_capsule(value, stream=kind.memory.stream() or 1), kind)
    if device_type != _DLPACK_CPU:
        raise TypeError(
            f"{name} is on a device of DLPack type {device_type}, but scores are computed on the "
            "CPU and on CUDA devices; copy it to the CPU first."
        )
    return Array(_capsule(value), _kind_of(value))


def _capsule(value: Any, **stream: Any) -> Any:
    try:
        return value.__dlpack__(max_version=(1, 0), **stream)
    except (TypeError, ValueError, NotImplementedError):
        # A producer from before DLPack 1.0, each of which says so in its way; what is wrong with
        # the array itself is raised again.
        return value.__dlpack__(**stream)


def _inspect_cuda_interface(name: str, value: Any) -> Array:
    interface = value.__cuda_array_interface__
    if interface.get("mask") is not None:
        raise TypeError(f"{name} has a mask, which would be ignored; give the voxels as mask=.")
    device = f"cuda:{_device_index(value)}"
    _require_cuda(name, device, "copy it to the CPU first")
    kind = _kind_of(value, device)
    producer = interface.get("stream")
    if producer is not None and producer != (kind.memory.stream() or 1):
        kind.memory.wait(_cupy().cuda.ExternalStream(producer).record())
    return Array((interface, value), kind)


def _device_index(value: Any) -> int:
    """The device of an array without DLPack, such as Numba's; the first if it does not say."""
    context = getattr(getattr(value, "gpu_data", None), "context", None)
    return int(getattr(getattr(context, "device", None), "id", 0))


def _require_cuda(name: str, device: str, remedy: str) -> None:
    if not _core.cuda_available():
        reason = _core.build_config()["cuda"]
        raise TypeError(
            f"{name} is on device {device}, but CUDA is not available here ({reason}); {remedy}."
        )


def _kind_of(value: Any, device: str = "cpu") -> Kind:
    """Name the module whose ``from_dlpack`` makes arrays like ``value``.

    If none does, results are NumPy's, or CuPy's on a CUDA device.
    """
    if hasattr(value, "__array_namespace__"):
        return Kind(value.__array_namespace__().__name__, device)
    library = type(value).__module__.partition(".")[0]
    if hasattr(sys.modules.get(library), "from_dlpack"):
        return Kind(library, device)
    return Kind("numpy" if device == "cpu" else "cupy", device)


@functools.cache
def _memory(module: str, index: int) -> DeviceMemory:
    """Memory for results that go to a library: torch's for torch, CuPy's for all others."""
    return _TorchMemory(index) if module == "torch" else _CupyMemory(index)


def _cupy() -> Any:
    try:
        return importlib.import_module("cupy")
    except ImportError as error:
        raise TypeError(
            "Arrays on a CUDA device that are not torch tensors need CuPy for the results, which "
            "could not be imported; install it, or pass torch.from_dlpack(x)."
        ) from error


class _TorchMemory:
    """torch's caching allocator and its current stream."""

    def __init__(self, index: int) -> None:
        self.module = sys.modules["torch"]
        self._device = self.module.device("cuda", index)

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        return self.module.empty(shape, dtype=getattr(self.module, dtype), device=self._device)

    def pointer(self, array: Any) -> int:
        return int(array.data_ptr())

    def keep(self, array: Any) -> Any:
        return array.contiguous()

    def from_numpy(self, array: np.ndarray) -> Any:
        return self.module.from_numpy(array).to(self._device)

    def to_numpy(self, array: Any) -> np.ndarray:
        host: np.ndarray = array.cpu().numpy()
        return host

    def current(self) -> AbstractContextManager[Any]:
        context: AbstractContextManager[Any] = self.module.cuda.device(self._device)
        return context

    def stream(self) -> int:
        return int(self.module.cuda.current_stream(self._device).cuda_stream)

    def record(self) -> Any:
        if self.module.cuda.is_current_stream_capturing():
            return None
        return self.module.cuda.current_stream(self._device).record_event()

    def wait(self, event: Any) -> None:
        if event is None or self.module.cuda.is_current_stream_capturing() or event.query():
            return
        self.module.cuda.current_stream(self._device).wait_event(event)


class _CupyMemory:
    """CuPy's memory pool and its current stream."""

    def __init__(self, index: int) -> None:
        self.module = _cupy()
        self._index = index

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        return self.module.empty(shape, dtype=dtype)

    def pointer(self, array: Any) -> int:
        return int(array.data.ptr)

    def keep(self, array: Any) -> Any:
        return self.module.ascontiguousarray(self.module.asarray(array))

    def from_numpy(self, array: np.ndarray) -> Any:
        with self.current():
            return self.module.asarray(array)

    def to_numpy(self, array: Any) -> np.ndarray:
        host: np.ndarray = self.module.asnumpy(self.module.asarray(array))
        return host

    def current(self) -> AbstractContextManager[Any]:
        context: AbstractContextManager[Any] = self.module.cuda.Device(self._index)
        return context

    def stream(self) -> int:
        return int(self.module.cuda.get_current_stream().ptr)

    def record(self) -> Any:
        stream = self.module.cuda.get_current_stream()
        return None if stream.is_capturing() else stream.record()

    def wait(self, event: Any) -> None:
        stream = self.module.cuda.get_current_stream()
        if event is not None and not stream.is_capturing() and not event.done:
            stream.wait_event(event)
