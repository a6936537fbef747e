"""Arrays in the runtime's device memory, in the manner of CuPy: what the package needs of it.

Exported by DLPack as memory of a CUDA device. Arithmetic is done in NumPy on a copy.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import numpy as np

from simt.engine import library

_MODULE = sys.modules[__name__]
__name__ = "cupy"  # as which the package knows it

_CODES = {"b": 6, "i": 0, "u": 1, "f": 2}  # of DLPack
_exported: dict[int, Any] = {}  # what consumers of DLPack capsules hold


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", ctypes.c_int32 * 2),
        ("rank", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    )


@ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def _delete(pointer: int) -> None:
    del _exported[pointer]


@ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
def _forget(capsule: int) -> None:
    """A capsule ends that nobody consumed: consumers rename it."""
    if ctypes.pythonapi.PyCapsule_IsValid(ctypes.c_void_p(capsule), _NAME):
        del _exported[_pointer_of(capsule, _NAME)]


class Memory:
    """A piece of device memory, released with its last array."""

    def __init__(self, bytes_: int, name: str, misalignment: int = 0) -> None:
        self.ptr = library.memory().device_allocate(bytes_, name.encode(), misalignment)

    def __del__(self) -> None:
        if sys.is_finalizing():
            return
        library.memory().device_release(self.ptr)


class _Data:
    def __init__(self, ptr: int) -> None:
        self.ptr = ptr


class ndarray:  # noqa: N801
    """An array on the device; ``lowest``: elements before the first one that belong to it."""

    def __init__(
        self,
        memory: Memory,
        shape: tuple[int, ...],
        dtype: str,
        strides: tuple[int, ...] | None = None,
        lowest: int = 0,
    ) -> None:
        self.memory, self.shape, self.name = memory, shape, dtype
        self.item = 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize
        if strides is None:
            strides = tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))
        self.element_strides, self.lowest = strides, lowest
        self.data = _Data(memory.ptr - lowest * self.item)

    @property
    def dtype(self) -> Any:
        return self.name if self.name == "bfloat16" else np.dtype(self.name)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __array_namespace__(self) -> Any:
        return _MODULE

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)

    def __dlpack__(self, *, stream: int | None = None, max_version: Any = None) -> Any:
        last_export.update(stream=stream)
        bits = 8 * self.item
        code = 4 if self.name == "bfloat16" else _CODES[np.dtype(self.name).kind]
        sizes = (ctypes.c_int64 * self.ndim)(*self.shape)
        strides = (ctypes.c_int64 * self.ndim)(*self.element_strides)
        tensor = _Tensor(self.data.ptr, (2, 0), self.ndim, code, bits, 1, sizes, strides, 0)
        tensor.deleter = ctypes.cast(_delete, ctypes.c_void_p)
        address = ctypes.addressof(tensor)
        _exported[address] = (self, tensor, sizes, strides)
        return _new_capsule(address, _NAME, ctypes.cast(_forget, ctypes.c_void_p))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = asnumpy(self)
        return array if dtype is None else array.astype(dtype)

    def _with(self, other: Any, operation: str) -> Any:
        other = asnumpy(other) if isinstance(other, ndarray) else other
        return asarray(getattr(asnumpy(self), operation)(other))

    def __add__(self, other: Any) -> Any:
        return self._with(other, "__add__")

    def __sub__(self, other: Any) -> Any:
        return self._with(other, "__sub__")

    def __mul__(self, other: Any) -> Any:
        return self._with(other, "__mul__")

    def __truediv__(self, other: Any) -> Any:
        return self._with(other, "__truediv__")

    def __and__(self, other: Any) -> Any:
        return self._with(other, "__and__")

    def __eq__(self, other: object) -> Any:
        return self._with(other, "__eq__")

    __hash__ = None  # type: ignore[assignment]

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, int):  # a view, as it would be there
            first, strides = self.element_strides[0], self.element_strides[1:]
            lowest = self.lowest - index * first
            return ndarray(self.memory, self.shape[1:], self.name, strides, lowest)
        if isinstance(index, slice) and index.step is None and self.ndim == 1:
            first, last, _ = index.indices(*self.shape)
            lowest = self.lowest - first * self.element_strides[0]
            return ndarray(
                self.memory, (max(0, last - first),), self.name, self.element_strides, lowest
            )
        return asarray(asnumpy(self)[index])

    def reshape(self, shape: tuple[int, ...]) -> ndarray:
        """A view of a contiguous array."""
        assert int(np.prod(shape)) == int(np.prod(self.shape))
        return ndarray(self.memory, shape, self.name, None, self.lowest)


_NAME = b"dltensor"
_new_capsule = ctypes.pythonapi.PyCapsule_New
_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.restype, _pointer_of.argtypes = ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_char_p)
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
last_export: dict[str, Any] = {}


def empty(shape: tuple[int, ...], dtype: str) -> ndarray:
    """An array that nothing was written to: reading it is a fault."""
    count = int(np.prod(shape, dtype=np.int64))
    name = "workspace" if dtype == "uint8" else "out"
    return ndarray(Memory(max(1, count) * np.dtype(dtype).itemsize, name), tuple(shape), dtype)


def asarray(x: Any, name: str = "array") -> ndarray:
    """Copy a NumPy array or a CPU tensor of torch, of any strides and alignment."""
    if isinstance(x, ndarray):
        return x
    if hasattr(x, "data_ptr"):
        dtype, data, strides = str(x.dtype).removeprefix("torch."), x.data_ptr(), x.stride()
        shape = tuple(x.shape)
    else:
        x = np.asarray(x)
        dtype, data, shape = str(x.dtype), x.ctypes.data, x.shape
        strides = tuple(stride // x.itemsize for stride in x.strides)
    reach = [(extent - 1) * stride for extent, stride in zip(shape, strides, strict=True)]
    lowest, highest = sum(r for r in reach if r < 0), sum(r for r in reach if r > 0)
    item = 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize
    first, count = data + lowest * item, (highest - lowest + 1) * item
    if 0 in shape:
        return ndarray(Memory(1, name), shape, dtype)
    memory = Memory(count, name, first % 16)
    library.memory().device_upload(memory.ptr, first, count)
    return ndarray(memory, shape, dtype, tuple(strides), lowest)


def ascontiguousarray(x: ndarray) -> ndarray:
    """The same if rows follow each other, else a copy."""
    plain = ndarray(x.memory, x.shape, x.name).element_strides
    return x if x.element_strides == plain else asarray(np.ascontiguousarray(asnumpy(x)))


def asnumpy(x: ndarray) -> np.ndarray:
    """Copy a contiguous array from the device; bytes that were never written are an error."""
    out = np.zeros(x.shape, x.dtype)
    if out.size:
        problem = library.memory().device_download(out.ctypes.data, x.data.ptr, out.nbytes)
        if problem:
            raise RuntimeError(problem.decode())
    return out


def where(condition: Any, first: Any, second: Any) -> ndarray:
    """As NumPy's."""
    return asarray(np.where(*(asnumpy(x) for x in (condition, first, second))))


class _Event:
    done = False


class _Stream:
    """Streams have names only: what is put on them is done at once."""

    def __init__(self, ptr: int) -> None:
        self.ptr = ptr
        self.waited: list[_Event] = []
        self.capturing = False

    def record(self) -> _Event:
        return _Event()

    def wait_event(self, event: _Event) -> None:
        self.waited.append(event)

    def is_capturing(self) -> bool:
        return self.capturing

    def __enter__(self) -> _Stream:
        _streams.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _streams.pop()


_streams = [_Stream(0)]


class _Device:
    def __init__(self, index: int) -> None:
        assert index == 0

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


class cuda:  # noqa: N801
    """Streams and devices."""

    Stream, Device = _Stream, _Device

    @staticmethod
    def get_current_stream() -> _Stream:
        return _streams[-1]
