"""Confusion counts and prototypes that merge, and what is made from them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from protoseg_fast import _core
from protoseg_fast._arrays import Kind, common_kind, inspect, to_numpy

__all__ = ["Counts", "MeanSA", "Prototypes", "mean_sa"]


@dataclass(frozen=True, eq=False)
class Counts:
    """Confusion counts of every image, group and target, over voxels with mask > 0.

    S is the map (margin > 0), G the target. Counts of parts of a volume add up: ``a + b``, or
    ``sum(parts)``. All arrays are of the caller's kind.

    Attributes:
        tp: (N, G, T) int64, voxels in both S and G.
        predicted: (N, G, T) int64, voxels in S.
        actual: (N, G, T) int64, voxels in G.
        voxels: (N, 1, 1) int64, voxels with mask > 0; broadcasts to (N, G, T).
        defined: (N, G, T) bool, False where a prototype is undefined or a feature is not
            finite; every score there is NaN. A merged count is defined if all its parts are.
    """

    tp: Any
    predicted: Any
    actual: Any
    voxels: Any
    defined: Any

    def score(self, name: str = "dice", *, empty: str = "nan") -> Any:
        """Return a score made from the counts.

        Args:
            name: "dice" = 2 TP / (\\|S\\| + \\|G\\|), "iou" = TP / \\|S or G\\|,
                "precision" = TP / \\|S\\| or "recall" = TP / \\|G\\|.
            empty: what empty masks are worth: "nan" (both empty NaN, else 0), "monai" (NaN
                wherever G is empty), "one" (both empty 1) or "zero".

        Returns:
            (N, G, T) float64; NaN where not ``defined``.

        Raises:
            ValueError: for an unknown name or policy.
        """
        arrays = (self.tp, self.predicted, self.actual, self.defined)
        return self._kind.wrap(_core.score(name, *(to_numpy(a) for a in arrays), empty))

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

    def to_dict(self) -> dict[str, Any]:
        """Return the arrays by name."""
        return dict(self.__dict__)

    @property
    def _kind(self) -> Kind:
        return inspect("tp", self.tp).kind

    def __add__(self, other: Counts) -> Counts:
        if not isinstance(other, Counts):
            return NotImplemented
        if tuple(self.tp.shape) != tuple(other.tp.shape):
            raise ValueError(
                "Counts merge part by part of the same images, groups and targets: shapes (N, G, "
                f"T) must be equal, got {tuple(self.tp.shape)} and {tuple(other.tp.shape)}."
            )
        _same_kind(self._kind, other._kind)
        return Counts(
            self.tp + other.tp,
            self.predicted + other.predicted,
            self.actual + other.actual,
            self.voxels + other.voxels,
            self.defined & other.defined,
        )

    def __radd__(self, other: object) -> Counts:
        return self if other == 0 else NotImplemented  # the start value of sum()

    def __repr__(self) -> str:
        dice = to_numpy(self.dice)
        return f"Counts({_shape_text('NGT', dice.shape)}, dice={_summary(dice)})"


@dataclass(frozen=True, eq=False)
class Prototypes:
    """Weighted mean features of foreground and background, with the weights they were made of.

    Prototypes of parts of a volume merge exactly: ``a + b``, or ``sum(parts)``. All arrays are of
    the caller's kind.

    Attributes:
        positive: (N, T, C) float64, sum(M P f) / sum(M P); NaN where the weights sum to 0.
        negative: (N, T, C) float64, sum(M (1-P) f) / sum(M (1-P)).
        positive_weight: (N, T) float64, sum(M P) over the voxels.
        negative_weight: (N, T) float64, sum(M (1-P)).
    """

    positive: Any
    negative: Any
    positive_weight: Any
    negative_weight: Any

    def to_dict(self) -> dict[str, Any]:
        """Return the arrays by name."""
        return dict(self.__dict__)

    @property
    def _kind(self) -> Kind:
        return inspect("positive", self.positive).kind

    def __add__(self, other: Prototypes) -> Prototypes:
        if not isinstance(other, Prototypes):
            return NotImplemented
        if tuple(self.positive.shape) != tuple(other.positive.shape):
            raise ValueError(
                "Prototypes merge part by part of the same images: shapes (N, T, C) must be "
                f"equal, got {tuple(self.positive.shape)} and {tuple(other.positive.shape)}."
            )
        _same_kind(self._kind, other._kind)
        mine, theirs = (
            {name: to_numpy(array) for name, array in p.to_dict().items()} for p in (self, other)
        )
        merged = {}
        for side in ("positive", "negative"):
            weight = f"{side}_weight"
            merged[side] = _merge_means(mine[side], mine[weight], theirs[side], theirs[weight])
            merged[weight] = mine[weight] + theirs[weight]
        return Prototypes(**{name: self._kind.wrap(array) for name, array in merged.items()})

    def __radd__(self, other: object) -> Prototypes:
        return self if other == 0 else NotImplemented

    def __repr__(self) -> str:
        distance = np.linalg.norm(to_numpy(self.positive) - to_numpy(self.negative), axis=-1)
        return (
            f"Prototypes({_shape_text('NTC', self.positive.shape)}, "
            f"distance={_summary(distance)})"
        )


class MeanSA(NamedTuple):
    """The paper's estimate of an output's quality without ground truth."""

    value: Any
    """(N, T) float64, the mean over layers and groups, NaN skipped; NaN if none is left."""
    count: Any
    """(N, T) int64, how many values the mean holds."""


def mean_sa(scores: Iterable[Any]) -> MeanSA:
    """Average SA scores over layers and groups (He et al. 2023, section 3.4).

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


def _merge_means(
    mean: np.ndarray, weight: np.ndarray, other: np.ndarray, other_weight: np.ndarray
) -> np.ndarray:
    """Merge means (N, T, C) of weights (N, T); equal means stay exactly equal."""
    total = weight + other_weight
    share = np.divide(other_weight, total, out=np.zeros_like(total), where=total > 0)[..., None]
    merged = mean + (other - mean) * share
    # A part without weight has an undefined mean, and no say.
    merged = np.where((other_weight == 0)[..., None], mean, merged)
    return np.where((weight == 0)[..., None], other, merged)


def _same_kind(kind: Kind, other: Kind) -> None:
    if kind != other:
        raise TypeError(
            f"Parts merge only within one array library, got {kind.module} and {other.module}."
        )


def _shape_text(letters: str, shape: Iterable[int]) -> str:
    return ", ".join(f"{letter}={size}" for letter, size in zip(letters, shape, strict=True))


def _summary(values: np.ndarray) -> str:
    held = values[~np.isnan(values)]
    if held.size == 0:
        return "nan"
    return f"{held.min():.3f}..{held.max():.3f}" if held.size > 1 else f"{held[0]:.3f}"


