"""The compiled engine. Private: use the package."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__version__: str

_CountArrays: TypeAlias = tuple[
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.bool_],
]

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
        self, features: Any, options: Options, target: bool, output: bool
    ) -> tuple[_CountArrays, ...]: ...
    def sa_score(self, features: Any, options: Options, empty: str) -> NDArray[np.float64]: ...
    def prototypes(
        self, features: Any, options: Options
    ) -> tuple[
        NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]
    ]: ...
    def segment(self, features: Any, options: Options) -> NDArray[np.bool_]: ...
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

def score(
    name: str,
    tp: NDArray[np.int64],
    predicted: NDArray[np.int64],
    actual: NDArray[np.int64],
    defined: NDArray[np.bool_],
    empty: str,
) -> NDArray[np.float64]: ...
def option_names() -> dict[str, list[str]]: ...
def available_isas() -> list[str]: ...
def set_isa(name: str) -> None: ...
def build_config() -> dict[str, Any]: ...
