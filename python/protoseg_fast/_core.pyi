"""The compiled engine. Private: use the package."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from protoseg_fast._arrays import DeviceMemory

__version__: str

_CountArrays: TypeAlias = tuple[
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.bool_],
]

_PrototypePair: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]

class Options:
    def __init__(
        self,
        *,
        groups: int,
        metric: str,
        interpolation: str,
        align_corners: bool,
        temperature: float,
    ) -> None: ...

class Guide:
    def __init__(self, pred: Any, target: Any, mask: Any, binarize: float | None) -> None: ...
    def sa_counts(
        self,
        features: Any,
        divisions: list[Options],
        output: bool,
        prototypes: _PrototypePair | None = None,
    ) -> list[list[_CountArrays]]: ...
    def sa_score(self, features: Any, options: Options, empty: str) -> NDArray[np.float64]: ...
    def prototypes(
        self, features: Any, options: Options
    ) -> tuple[
        NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]
    ]: ...
    def segment(
        self, features: Any, options: Options, prototypes: _PrototypePair | None = None
    ) -> NDArray[np.bool_]: ...
    def probability(self, features: Any, options: Options) -> NDArray[np.floating[Any]]: ...
    def margin_tape(
        self, features: Any, options: Options
    ) -> tuple[NDArray[np.floating[Any]], NDArray[np.float64], NDArray[np.floating[Any]]]: ...
    def margin_backward(
        self,
        features: Any,
        options: Options,
        margin: Any,
        prototypes: Any,
        square: Any,
        grad: Any,
        features_grad: Any,
        pred_grad: Any,
        mask_grad: Any,
    ) -> None: ...
    @property
    def images(self) -> int: ...
    @property
    def targets(self) -> int: ...
    @property
    def size(self) -> tuple[int, ...]: ...
    @property
    def nbytes(self) -> int: ...

class CudaGuide:
    def __init__(
        self,
        pred: Any,
        target: Any,
        mask: Any,
        binarize: float | None,
        memory: DeviceMemory,
        stream: int,
    ) -> None: ...
    def sa_counts(
        self,
        layers: Sequence[tuple[Any, list[Options], tuple[Any, Any] | None]],
        output: bool,
        stream: int,
    ) -> list[list[list[tuple[Any, Any, Any, Any, Any]]]]: ...
    def sa_score(self, features: Any, options: Options, empty: str, stream: int) -> Any: ...
    def prototypes(
        self, features: Any, options: Options, stream: int
    ) -> tuple[Any, Any, Any, Any]: ...
    def segment(
        self, features: Any, options: Options, prototypes: tuple[Any, Any] | None, stream: int
    ) -> Any: ...
    def probability(self, features: Any, options: Options, stream: int) -> Any: ...
    def margin_tape(self, features: Any, options: Options, stream: int) -> tuple[Any, Any, Any]: ...
    def margin_backward(
        self,
        features: Any,
        options: Options,
        margin: Any,
        prototypes: Any,
        square: Any,
        grad: Any,
        features_grad: Any,
        pred_grad: Any,
        mask_grad: Any,
        stream: int,
    ) -> None: ...
    def check(self, stream: int) -> None: ...
    def set_tuning(self, strategy: int, cluster: int, units: int, cache_bytes: int) -> None: ...
    @property
    def images(self) -> int: ...
    @property
    def targets(self) -> int: ...
    @property
    def size(self) -> tuple[int, ...]: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def allocations(self) -> int: ...

def score(
    name: str,
    tp: NDArray[np.int64],
    predicted: NDArray[np.int64],
    actual: NDArray[np.int64],
    defined: NDArray[np.bool_],
    empty: str,
) -> NDArray[np.float64]: ...
def cuda_score(
    name: str,
    counts: tuple[Any, ...],
    shape: tuple[int, ...],
    empty: str,
    memory: DeviceMemory,
    stream: int,
) -> Any: ...
def cuda_compiled() -> bool:
    """Whether this build has the CUDA engine; asks no driver."""

def cuda_available() -> bool:
    """Whether a CUDA device can be used; ``build_config()["cuda"]`` says why not."""

def option_names() -> dict[str, list[str]]: ...
def available_isas() -> list[str]: ...
def set_isa(name: str) -> None: ...
def build_config() -> dict[str, Any]: ...
