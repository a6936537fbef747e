"""The CUDA engine on the host: `Guide` of the package's shape, its kernels run by the runtime.

Every strategy can be forced, and what the kernels moved through memory can be asked for.
"""

from __future__ import annotations

import ctypes
import functools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from simt import build

HERE = Path(__file__).resolve().parent
DTYPES = (
    *("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
    *("float16", "bfloat16", "float32", "float64"),
)
STRATEGIES = ("automatic", "small", "resident", "streamed", "split")
METRICS = ("euclidean", "cosine")
INTERPOLATIONS = ("linear", "nearest")
ERRORS = {1: ValueError, 2: TypeError, 3: RuntimeError}


class _Array(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("dtype", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("shape", ctypes.c_int64 * 5),
        ("strides", ctypes.c_int64 * 5),
    )


class _Options(ctypes.Structure):
    _fields_ = (
        ("groups", ctypes.c_int64),
        ("metric", ctypes.c_int32),
        ("interpolation", ctypes.c_int32),
        ("align_corners", ctypes.c_int32),
        ("temperature", ctypes.c_double),
        ("strategy", ctypes.c_int32),
        ("cluster", ctypes.c_int32),
        ("units", ctypes.c_int32),
        ("cache_bytes", ctypes.c_int64),
    )


class Prototypes(NamedTuple):
    """Means (N, T, C) and the sums of their weights (N, T)."""

    positive: np.ndarray
    negative: np.ndarray
    positive_weight: np.ndarray
    negative_weight: np.ndarray


class Counts(NamedTuple):
    """Counts (N, G, T); voxels (N, 1, 1)."""

    tp: np.ndarray
    predicted: np.ndarray
    actual: np.ndarray
    voxels: np.ndarray
    defined: np.ndarray


@functools.cache
def library() -> ctypes.CDLL:
    """Compile the engine as the checkout has it."""
    own, *parts = build.units_of(HERE / "kernels" / "engine_simt.cpp")
    return ctypes.CDLL(str(build.library(build.Unit(own.source, instrumented=False), *parts)))


def _call(function: str, *arguments: Any) -> None:
    message = ctypes.create_string_buffer(4096)
    code = getattr(library(), function)(*arguments, message, ctypes.c_size_t(len(message)))
    if code:
        raise ERRORS[code](message.value.decode())


def _array(x: Any) -> _Array:
    name = str(x.dtype).removeprefix("torch.")
    if hasattr(x, "data_ptr"):
        data, strides = x.data_ptr(), x.stride()
    else:
        data, strides = x.ctypes.data, [s // x.itemsize for s in x.strides]
    shape = tuple(x.shape)
    pad = (0,) * (5 - len(shape))
    return _Array(data, DTYPES.index(name), len(shape), (*shape, *pad), (*strides, *pad))


def _pointer(x: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(x.ctypes.data)


class Guide:
    """As `protoseg_fast.Guide`; `tuning` forces a strategy, see Tuning in cuda.hpp."""

    def __init__(
        self,
        pred: Any,
        target: Any = None,
        mask: Any = None,
        *,
        binarize: float | None = None,
        **tuning: Any,
    ) -> None:
        self.tuning = tuning
        self.shape = tuple(pred.shape)
        self._state = ctypes.c_void_p()
        arrays = [None if x is None else ctypes.byref(_array(x)) for x in (pred, target, mask)]
        threshold = None if binarize is None else ctypes.byref(ctypes.c_double(binarize))
        _call("simt_guide", *arrays, threshold, ctypes.byref(self._state))

    def __del__(self) -> None:
        if self._state:
            library().simt_guide_free(self._state)

    def check(self) -> None:
        """Raise what was found wrong with the values."""
        _call("simt_check", self._state)

    def sa_counts(self, features: Any, *, output: bool = False, **options: Any) -> Counts:
        """Counts against the target, or against the output."""
        return self._counts(features, options, [not output, output])[int(output)]

    def sa_counts_both(self, features: Any, **options: Any) -> tuple[Counts, Counts]:
        """Counts against the target and against the output."""
        return self._counts(features, options, [True, True])

    def prototypes(self, features: Any, **options: Any) -> Prototypes:
        """Prototypes and the sums of their weights."""
        means, planes = (*self.shape[:2], features.shape[1]), self.shape[:2]
        out = Prototypes(*(np.zeros(shape) for shape in (means, means, planes, planes)))
        pointers = (ctypes.c_void_p * 4)(*(x.ctypes.data for x in out))
        _call(
            "simt_prototypes", *self._inputs(features, self._options(features, options)), pointers
        )
        return out

    def segment(self, features: Any, **options: Any) -> np.ndarray:
        """Maps (N, G, T, *size)."""
        o = self._options(features, options)
        out = np.zeros(self._map_shape(o), bool)
        _call("simt_segment", *self._inputs(features, o), _pointer(out))
        return out

    def probability(self, features: Any, **options: Any) -> np.ndarray:
        """Probabilities (N, G, T, *size)."""
        o = self._options(features, options)
        wide = str(features.dtype).endswith("float64")
        out = np.zeros(self._map_shape(o), np.float64 if wide else np.float32)
        _call("simt_probability", *self._inputs(features, o), _pointer(out), int(wide))
        return out

    def _counts(self, features: Any, options: dict[str, Any], asked: list[bool]) -> Any:
        o = self._options(features, options)
        shape = (self.shape[0], o.groups, self.shape[1])
        found, arguments = [], []
        for which in range(2):
            voxels = np.zeros((shape[0], 1, 1), np.int64)
            arrays = [*(np.zeros(shape, np.int64) for _ in range(3)), voxels]
            defined = np.zeros(shape, bool)
            found.append(Counts(*arrays, defined))
            pointers = (ctypes.c_void_p * 4)(*(x.ctypes.data for x in arrays))
            arguments += [pointers if asked[which] else None, _pointer(defined)]
        _call("simt_sa_counts", *self._inputs(features, o), *arguments)
        return found

    def _inputs(self, features: Any, options: _Options) -> tuple[Any, ...]:
        return self._state, ctypes.byref(_array(features)), ctypes.byref(options)

    def _map_shape(self, options: _Options) -> tuple[int, ...]:
        return (self.shape[0], options.groups, *self.shape[1:])

    def _options(self, features: Any, options: dict[str, Any]) -> _Options:
        groups = {"layer": 1, "unit": features.shape[1]}
        asked = options.get("groups", 1)
        return _Options(
            groups.get(asked, asked),
            METRICS.index(options.get("metric", "euclidean")),
            INTERPOLATIONS.index(options.get("interpolation", "linear")),
            options.get("align_corners", False),
            options.get("temperature", 1.0),
            STRATEGIES.index(self.tuning.get("strategy", "automatic")),
            self.tuning.get("cluster", 0),
            self.tuning.get("units", 0),
            self.tuning.get("cache_bytes", 0),
        )


@contextmanager
def traffic() -> Iterator[list[dict[str, Any]]]:
    """Collect what each launch inside moved: a list that is filled at the end."""
    found: list[dict[str, Any]] = []
    library().simt_clear()
    yield found
    library().simt_traffic.restype = ctypes.c_size_t
    size = library().simt_traffic(None, ctypes.c_size_t(0))
    text = ctypes.create_string_buffer(size)
    library().simt_traffic(text, ctypes.c_size_t(size))
    found += [json.loads(line) for line in text.value.decode().splitlines()]


def set_seed(seed: int) -> None:
    """Choose the schedule of the launches to come."""
    library().simt_seed(ctypes.c_uint64(seed))
