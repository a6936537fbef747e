"""Confusion counts and prototypes that merge, and what is made from them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from protoseg_fast import _core
from protoseg_fast._arrays import NUMPY, Kind, common_kind, inspect, to_numpy
from protoseg_fast._parts import Parts

__all__ = ["BothCounts", "Counts", "MeanSA", "Prototypes", "mean_sa", "on_host"]


class Counts(Parts):
    """Confusion counts of every image, group and target, over voxels with mask > 0.

    S is the map (margin > 0), G the target. Counts of parts of a volume add up: ``a + b``, or
    ``sum(parts)``. Arrays are given and returned in the caller's kind. Those in memory of the CPU
    are copied and checked; those on a CUDA device are neither, as nothing waits for it.

    Args:
        tp: (N, G, T) int64, voxels in both S and G.
        predicted: (N, G, T) int64, voxels in S.
        actual: (N, G, T) int64, voxels in G.
        voxels: (N, 1, 1) int64, voxels with mask > 0; broadcasts to (N, G, T).
        defined: (N, G, T) bool, False where a prototype is undefined or a feature is not
            finite; every score there is NaN. A merged count is defined if all its parts are.

    Raises:
        TypeError: if the arrays are not all of one kind, or not of whole numbers (defined: bool);
            on a CUDA device they must be int64.
        ValueError: if their shapes do not go together, or their values: 0 <= tp, which is at most
            predicted and actual, and |S or G| = predicted + actual - tp <= voxels.
    """

    _letters = "NGT"
    _names = ("tp", "predicted", "actual", "voxels", "defined")
    _dtypes = ("int64", "int64", "int64", "int64", "bool")

    def __init__(self, tp: Any, predicted: Any, actual: Any, voxels: Any, defined: Any) -> None:
        given = {
            "tp": tp,
            "predicted": predicted,
            "actual": actual,
            "voxels": voxels,
            "defined": defined,
        }
        arrays, kind = self._given(given)
        shape = tuple(arrays["tp"].shape)
        if len(shape) != 3:
            raise ValueError(f"tp must have shape (N, G, T), got {shape}.")
        for name, array in arrays.items():
            also = (shape[0], 1, 1) if name == "voxels" else shape
            if tuple(array.shape) not in (shape, also):
                raise ValueError(
                    f"{name} must have shape {also} to go with tp, got {tuple(array.shape)}."
                )
        if kind.device == "cpu":
            self._check_values(**arrays)
        super().__init__(arrays, kind)

    @staticmethod
    def _check_values(tp: Any, predicted: Any, actual: Any, voxels: Any, defined: Any) -> None:
        # In an order in which no difference exceeds 64 bits.
        wrong = (tp < 0) | (tp > predicted) | (tp > actual) | (actual > voxels)
        wrong |= predicted - tp > voxels - actual
        if wrong.any():
            at = tuple(np.argwhere(wrong)[0].tolist())
            numbers = [
                int(np.broadcast_to(x, tp.shape)[at]) for x in (tp, predicted, actual, voxels)
            ]
            raise ValueError(
                "Counts must have 0 <= tp <= predicted and actual, and predicted + actual - tp <= "
                "voxels, got tp={}, predicted={}, actual={}, voxels={} at {}.".format(*numbers, at)
            )

    @property
    def tp(self) -> Any:
        """(N, G, T) int64, voxels in both map and target."""
        return self._get("tp")

    @property
    def predicted(self) -> Any:
        """(N, G, T) int64, voxels in the map."""
        return self._get("predicted")

    @property
    def actual(self) -> Any:
        """(N, G, T) int64, voxels in the target."""
        return self._get("actual")

    @property
    def voxels(self) -> Any:
        """(N, 1, 1) int64, voxels with mask > 0; broadcasts to (N, G, T)."""
        return self._get("voxels")

    @property
    def defined(self) -> Any:
        """(N, G, T) bool, False where scores are NaN for want of a defined prototype."""
        return self._get("defined")

    def score(self, name: str = "dice", *, empty: str = "nan") -> Any:
        """Return a score made from the counts.

        Args:
            name: "dice" = 2 TP / (|S| + |G|), "iou" = TP / |S or G|,
                "precision" = TP / |S| or "recall" = TP / |G|.
            empty: what empty masks are worth: "nan" (both empty NaN, else 0), "monai" (NaN
                wherever G is empty), "one" (both empty 1) or "zero".

        Returns:
            (N, G, T) float64; NaN where not ``defined``.

        Raises:
            ValueError: for an unknown name or policy.
            TypeError: if they are no strings.
        """
        for argument, value in (("name", name), ("empty", empty)):
            if not isinstance(value, str):
                raise TypeError(f"{argument} must be a string, got {type(value).__name__}.")
        return self._kind.wrap(self._score(name, empty))

    @property
    def dice(self) -> Any:
        """(N, G, T) float64, 2 TP / (|S| + |G|): the SA score, NaN if both are empty."""
        return self.score("dice")

    @property
    def iou(self) -> Any:
        """(N, G, T) float64, TP / (|S| + |G| - TP), NaN if both are empty."""
        return self.score("iou")

    @property
    def precision(self) -> Any:
        """(N, G, T) float64, TP / |S|, NaN if S is empty."""
        return self.score("precision")

    @property
    def recall(self) -> Any:
        """(N, G, T) float64, TP / |G|, NaN if G is empty."""
        return self.score("recall")

    def _score(self, name: str, empty: str) -> Any:
        arrays = tuple(self._arrays[part] for part in ("tp", "predicted", "actual", "defined"))
        if self._kind.device == "cpu":
            tp, predicted, actual, defined = arrays
            return _core.score(name, tp, predicted, actual, defined, empty)
        memory, shape = self._kind.memory, tuple(arrays[0].shape)
        with memory.current():
            return _core.cuda_score(name, arrays, shape, empty, memory, memory.stream())

    def __add__(self, other: Counts) -> Counts:
        if not isinstance(other, Counts):
            return NotImplemented
        self._check_part(other)
        merged = {
            name: array & other._arrays[name] if name == "defined" else array + other._arrays[name]
            for name, array in self._arrays.items()
        }
        return Counts._from_core(tuple(merged.values()), self._kind)

    def __repr__(self) -> str:
        return self._repr(dice=to_numpy(self._score("dice", "nan")))


def on_host(parts: Sequence[Counts]) -> list[Counts]:
    """Return counts in memory of the CPU, in order. Those of a device come together, in one copy
    for each of the five arrays, which waits for what is being computed.
    """
    found = list(parts)
    for kind in {part._kind for part in parts if part._kind.device != "cpu"}:
        indices = [i for i, part in enumerate(parts) if part._kind == kind]
        columns = []
        for name in Counts._names:
            arrays = [parts[i]._arrays[name] for i in indices]
            together = parts[indices[0]]._library.concatenate([x.reshape(-1) for x in arrays])
            ends = np.cumsum([np.prod(x.shape, dtype=np.int64) for x in arrays])
            flat = np.split(kind.memory.to_numpy(together), ends[:-1])
            columns.append([x.reshape(y.shape) for x, y in zip(flat, arrays, strict=True)])
        here = Kind("torch") if kind.module == "torch" else NUMPY
        for i, *arrays in zip(indices, *columns, strict=True):
            found[i] = Counts._from_core(tuple(arrays), here)
    return found


class BothCounts(NamedTuple):
    """Counts of the same maps against both references."""

    target: Counts
    """Against the guide's target."""
    output: Counts
    """Against the network's own output, pred > 0.5."""


class Prototypes(Parts):
    """Weighted mean features of foreground and background, with the weights they were made of.

    Prototypes of parts of a volume merge: ``a + b``, or ``sum(parts)``. Arrays are given and
    returned in the caller's kind. Those in memory of the CPU are copied, and may be of any real
    dtype.

    Args:
        positive: (N, T, C) float64, sum(M P f) / sum(M P); NaN where the weights sum to 0.
        negative: (N, T, C) float64, sum(M (1-P) f) / sum(M (1-P)).
        positive_weight: (N, T) float64, sum(M P) over the voxels.
        negative_weight: (N, T) float64, sum(M (1-P)).

    Raises:
        TypeError: if the arrays are not all of one kind, or not of real numbers; on a CUDA device
            they must be float64.
        ValueError: if their shapes do not go together, or a weight is negative or NaN, which is
            not asked on a CUDA device.
    """

    _letters = "NTC"
    _names = ("positive", "negative", "positive_weight", "negative_weight")
    _dtypes = ("float64",) * 4

    def __init__(
        self, positive: Any, negative: Any, positive_weight: Any, negative_weight: Any
    ) -> None:
        given = {
            "positive": positive,
            "negative": negative,
            "positive_weight": positive_weight,
            "negative_weight": negative_weight,
        }
        arrays, kind = self._given(given)
        shape = tuple(arrays["positive"].shape)
        if len(shape) != 3:
            raise ValueError(f"positive must have shape (N, T, C), got {shape}.")
        for name, array in arrays.items():
            weight = name.endswith("weight")
            wanted = shape[:2] if weight else shape
            if tuple(array.shape) != wanted:
                raise ValueError(
                    f"{name} must have shape {wanted} to go with positive, "
                    f"got {tuple(array.shape)}."
                )
            if weight and kind.device == "cpu" and not (array >= 0).all():
                raise ValueError(f"{name} must not be negative or NaN.")
        super().__init__(arrays, kind)

    @property
    def positive(self) -> Any:
        """(N, T, C) float64, the mean features under M P; NaN if there is no foreground."""
        return self._get("positive")

    @property
    def negative(self) -> Any:
        """(N, T, C) float64, the mean features under M (1-P); NaN if there is no background."""
        return self._get("negative")

    @property
    def positive_weight(self) -> Any:
        """(N, T) float64, sum(M P)."""
        return self._get("positive_weight")

    @property
    def negative_weight(self) -> Any:
        """(N, T) float64, sum(M (1-P))."""
        return self._get("negative_weight")

    def __add__(self, other: Prototypes) -> Prototypes:
        if not isinstance(other, Prototypes):
            return NotImplemented
        self._check_part(other)
        mine, theirs = self._arrays, other._arrays
        sides = ("positive", "negative")
        weights = [f"{side}_weight" for side in sides]
        where = self._library.where
        means = [
            _merge_means(where, mine[side], mine[weight], theirs[side], theirs[weight])
            for side, weight in zip(sides, weights, strict=True)
        ]
        return Prototypes._from_core(
            (*means, *(mine[weight] + theirs[weight] for weight in weights)), self._kind
        )

    def __repr__(self) -> str:
        difference = to_numpy(self._arrays["positive"]) - to_numpy(self._arrays["negative"])
        return self._repr(distance=np.linalg.norm(difference, axis=-1))


class MeanSA(NamedTuple):
    """The paper's estimate of an output's quality without ground truth."""

    value: Any
    """(N, T) float64, the mean over layers and groups, NaN skipped; NaN if none is left."""
    count: Any
    """(N, T) int64, how many values the mean holds."""


def mean_sa(scores: Iterable[Any]) -> MeanSA:
    """Average SA scores over layers and groups (He et al. 2023, arXiv:2212.09206).

    Args:
        scores: one array (N, G, T) per layer, or one such array; N and T are the same for all,
            G may differ. Usually scored against the network's own output.

    Returns:
        MeanSA(value, count), both (N, T), of the kind of the scores. NaN is skipped.

    Raises:
        ValueError: if there are no scores, or their shapes do not fit.
        TypeError: if they are no arrays of one kind.

    Examples:
        >>> import numpy as np
        >>> shallow, deep = np.full((1, 1, 1), 0.5), np.full((1, 2, 1), 0.8)
        >>> value, count = mean_sa([shallow, deep])
        >>> round(float(value[0, 0]), 2), int(count[0, 0])
        (0.7, 3)
    """
    layers = [scores] if hasattr(scores, "shape") else list(scores)
    if not layers:
        raise ValueError("scores must hold at least one array (N, G, T), got none.")
    kind = common_kind({f"scores[{i}]": inspect(f"scores[{i}]", x) for i, x in enumerate(layers)})
    arrays = [to_numpy(x).astype(np.float64) for x in layers]
    for i, array in enumerate(arrays):
        if array.ndim != 3 or array.shape[::2] != arrays[0].shape[::2]:
            raise ValueError(
                "scores must have shape (N, G, T) with one N and T for all layers, got "
                f"{array.shape} for scores[{i}] and {arrays[0].shape} for scores[0]."
            )
    values = np.concatenate(arrays, axis=1)
    held = ~np.isnan(values)
    count = held.sum(axis=1)
    total = np.where(held, values, 0.0).sum(axis=1)
    with np.errstate(invalid="ignore"):
        mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return MeanSA(kind.wrap(mean), kind.wrap(count))


def _merge_means(where: Any, mean: Any, weight: Any, other: Any, other_weight: Any) -> Any:
    """Merge means (N, T, C) of weights (N, T); equal means stay exactly equal."""
    total = weight + other_weight
    share = (other_weight / (total + (total == 0)))[..., None]
    with np.errstate(invalid="ignore"):  # means of features that are not finite
        merged = mean + (other - mean) * share
    # A part without weight has an undefined mean, and no say.
    merged = where((other_weight == 0)[..., None], mean, merged)
    return where((weight == 0)[..., None], other, merged)
