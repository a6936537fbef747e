"""The core's Guide for arrays on a CUDA device: streams, and what has to wait for what."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from protoseg_fast import _core
from protoseg_fast._arrays import Array, Kind, inspect

__all__ = ["CudaGuide"]


class CudaGuide:
    """As `_core.Guide`, with results on the device: nothing here waits for it but `check`.

    What a guide keeps (packed targets; weights, per feature size) is written on the stream where
    it is first needed. Work on another stream is made to wait for that by an event.
    """

    def __init__(self, arrays: dict[str, Array], kind: Kind, binarize: float | None) -> None:
        self._memory = kind.memory
        # What one thread has put on its stream must have its event before another one uses it.
        self._lock = threading.Lock()
        pred, target, mask = (
            arrays[name].exported if name in arrays else None for name in ("pred", "target", "mask")
        )
        with self._memory.current():
            stream = self._memory.stream()
            self.core = _core.CudaGuide(pred, target, mask, binarize, self._memory, stream)
            self._written(stream)

    def _written(self, stream: int) -> None:
        self._allocations = self.core.allocations
        self._stream = stream
        self._event = self._memory.record()

    def _call(self, method: str, *arguments: Any) -> Any:
        with self._lock, self._memory.current():
            stream = self._memory.stream()
            if stream != self._stream:
                self._memory.wait(self._event)
            result = getattr(self.core, method)(*arguments, stream)
            if self.core.allocations != self._allocations:
                self._written(stream)
        return result

    def _export(self, given: tuple[Any, Any] | None) -> tuple[Any, Any] | None:
        """Prototypes (positive, negative) for the core, which borrows each of them once."""
        if given is None:
            return None
        with self._memory.current():
            positive, negative = (
                inspect("prototypes", self._memory.keep(array)).exported for array in given
            )
        return positive, negative

    def sa_counts(
        self,
        features: Any,
        divisions: list[_core.Options],
        output: bool,
        given: Any = None,
    ) -> list[Any]:
        """As of `_core.Guide`."""
        (counts,) = self.sa_counts_of_layers([(features, divisions, given)], output)
        return counts

    def sa_counts_of_layers(
        self, layers: Sequence[tuple[Any, list[_core.Options], Any]], output: bool
    ) -> list[list[Any]]:
        """As `sa_counts` for each (features, divisions, given), in one call."""
        exported = [
            (features, divisions, self._export(given)) for features, divisions, given in layers
        ]
        counts: list[list[Any]] = self._call("sa_counts", exported, output)
        return counts

    def sa_score(self, features: Any, options: _core.Options, empty: str) -> Any:
        """As of `_core.Guide`."""
        return self._call("sa_score", features, options, empty)

    def prototypes(self, features: Any, options: _core.Options) -> tuple[Any, ...]:
        """As of `_core.Guide`."""
        prototypes: tuple[Any, ...] = self._call("prototypes", features, options)
        return prototypes

    def segment(self, features: Any, options: _core.Options, given: Any = None) -> Any:
        """As of `_core.Guide`."""
        return self._call("segment", features, options, self._export(given))

    def probability(self, features: Any, options: _core.Options) -> Any:
        """As of `_core.Guide`."""
        return self._call("probability", features, options)

    def margin_tape(self, features: Any, options: _core.Options) -> tuple[Any, ...]:
        """As of `_core.Guide`."""
        tape: tuple[Any, ...] = self._call("margin_tape", features, options)
        return tape

    def margin_backward(self, *arguments: Any) -> None:
        """As of `_core.Guide`."""
        self._call("margin_backward", *arguments)

    def check(self) -> None:
        """Wait for the device, and raise what was found wrong with the values."""
        self._call("check")

    @property
    def images(self) -> int:
        """N."""
        return self.core.images

    @property
    def targets(self) -> int:
        """T."""
        return self.core.targets

    @property
    def size(self) -> tuple[int, ...]:
        """Spatial extents."""
        return self.core.size

    @property
    def nbytes(self) -> int:
        """Bytes kept on the device."""
        return self.core.nbytes
