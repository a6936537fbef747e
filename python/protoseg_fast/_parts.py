"""What counts and prototypes have in common: arrays of one caller's kind, by name, that merge."""

from __future__ import annotations

from typing import Any

import numpy as np

from protoseg_fast._arrays import Kind, common_kind, inspect, to_numpy

__all__ = ["Parts"]

_KINDS = {"bool": "b", "int64": "iu", "float64": "iuf"}  # of dtypes that are widened


class Parts:
    """Arrays of one caller's kind that merge with those of other parts of the same images.

    Kept in NumPy, whose 64-bit numbers every kind's results are made from when asked for; on a
    CUDA device in arrays there.
    """

    _letters: str  # of the axes of the first array
    _names: tuple[str, ...]  # of the arrays
    _dtypes: tuple[str, ...]  # as they are kept

    def __init__(self, arrays: dict[str, Any], kind: Kind) -> None:
        self._arrays = arrays
        self._kind = kind

    @classmethod
    def _given(cls, given: dict[str, Any]) -> tuple[dict[str, Any], Kind]:
        """The caller's arrays as they are kept, and their kind."""
        kind = common_kind({name: inspect(name, array) for name, array in given.items()})
        kept = {}
        for (name, array), dtype in zip(given.items(), cls._dtypes, strict=True):
            if kind.device == "cpu":
                kept[name] = _widened(name, to_numpy(array), dtype)
                continue
            kept[name] = kind.memory.keep(array)
            found = str(kept[name].dtype).removeprefix("torch.")
            if found != dtype:
                raise TypeError(
                    f"{cls.__name__.lower()} on a CUDA device must be {dtype}, got dtype {found} "
                    f"for {name}."
                )
        return kept, kind

    @classmethod
    def _from_core(cls, arrays: tuple[Any, ...], kind: Kind) -> Any:
        parts = cls.__new__(cls)
        Parts.__init__(parts, dict(zip(cls._names, arrays, strict=True)), kind)
        return parts

    def to_dict(self) -> dict[str, Any]:
        """Return the arrays by name, in the caller's kind."""
        return {name: self._kind.wrap(array) for name, array in self._arrays.items()}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    @property
    def _library(self) -> Any:
        """With ``where`` and ``concatenate`` for the arrays as they are kept."""
        return np if self._kind.device == "cpu" else self._kind.memory.module

    def _get(self, name: str) -> Any:
        return self._kind.wrap(self._arrays[name])

    def _check_part(self, other: Parts) -> None:
        mine, theirs = (next(iter(p._arrays.values())).shape for p in (self, other))
        if mine != theirs:
            axes = ", ".join(self._letters)
            raise ValueError(
                f"{type(self).__name__} merge part by part of the same images: their shapes "
                f"({axes}) must be equal, got {mine} and {theirs}."
            )
        if self._kind != other._kind:
            raise TypeError(
                f"Parts merge within one array library and device, got {self._kind} and "
                f"{other._kind}."
            )

    def __radd__(self, other: object) -> Any:
        return self if other == 0 else NotImplemented  # the start value of sum()

    def _repr(self, **summaries: np.ndarray) -> str:
        shape = next(iter(self._arrays.values())).shape
        sizes = [f"{letter}={n}" for letter, n in zip(self._letters, shape, strict=True)]
        texts = [f"{name}={_summary(values)}" for name, values in summaries.items()]
        return f"{type(self).__name__}({', '.join(sizes + texts)})"


def _widened(name: str, array: np.ndarray, dtype: str) -> np.ndarray:
    """Return a copy, which the caller cannot change."""
    if array.dtype.kind not in _KINDS[dtype]:
        raise TypeError(f"{name} must be {dtype}, got dtype {array.dtype}.")
    return array.astype(dtype, order="C")


def _summary(values: np.ndarray) -> str:
    held = values[~np.isnan(values)]
    if held.size == 0:
        return "nan"
    return f"{held.min():.3f}..{held.max():.3f}" if held.size > 1 else f"{held[0]:.3f}"
