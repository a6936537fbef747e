"""The best PyTorch we could write: the same mathematics that the engine is built on.

A unit is a threshold (two products with a vector, one comparison, two counts); a layer is a
projection; the weights of prototypes are resized down instead of the features up; a layer's margin
is resized once. Units of another size still have to be resized, chunk by chunk, since PyTorch has
no operation that compares and counts while it interpolates (`torch.compile` can fuse one).
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from workloads import MODES, Inputs, Workload

MIB = 2**20


@dataclass(frozen=True)
class Variant:
    """What an expert would try out; the fastest on the problem at hand is timed.

    Attributes:
        chunk_bytes: units are taken so many bytes (at the size of the target) at a time.
        count: "vector": 0/1 in float32 times the target; "bool": int32 sums of booleans.
        upsample: "matmul": one product per axis; "interpolate".
    """

    chunk_bytes: int
    count: str
    upsample: str = "matmul"

    def __str__(self) -> str:
        return f"{self.upsample}, {self.count} counts, {self.chunk_bytes / MIB:g} MiB chunks"


def variants(workload: Workload) -> list[Variant]:
    """All combinations that differ for a workload."""
    if workload.group_channels > 1:
        return [Variant(MIB, count) for count in ("vector", "bool")]
    ways = ("matmul", "interpolate") if workload.resized else ("matmul",)
    unit = 4 * math.prod(workload.size)
    by_rows = {max(1, chunk // unit): chunk for chunk in (16 * MIB, 4 * MIB, MIB // 2)}
    combinations = itertools.product(by_rows.values(), ("vector", "bool"), ways)
    return list(itertools.starmap(Variant, combinations))


#: The fastest variant by problem, device and number of units it was tried on.
_fastest: dict[tuple[Workload, str, int], Variant] = {}


def fastest(workload: Workload, inputs: Inputs, features: Tensor) -> Variant:
    """The variant that scores ``features`` in the least time, after a warm-up."""

    def seconds(variant: Variant) -> float:
        for _ in range(2):
            start = time.perf_counter()
            score(features, inputs.pred, inputs.target, workload.group_channels, variant)
            if features.is_cuda:
                torch.cuda.synchronize()
            elapsed = time.perf_counter() - start
        return elapsed

    key = workload, str(features.device), features.shape[1]
    if key not in _fastest:
        _fastest[key] = min(variants(workload), key=seconds)
    return _fastest[key]


def score(
    features: Tensor, pred: Tensor, target: Tensor, group_channels: int, variant: Variant
) -> Tensor:
    """Scores (N, G, T) of features (N, C, *feature_size)."""
    images = [
        _score_units(f, p, g, variant)
        if group_channels == 1
        else _score_groups(f, p, g, group_channels, variant)
        for f, p, g in zip(features, pred, target, strict=True)
    ]
    return torch.stack(images)


def unit_maps(features: Tensor, pred: Tensor, variant: Variant) -> Iterator[tuple[int, Tensor]]:
    """Maps (units, *size) bool of one image, (target, map), chunk after chunk of its units.

    For metrics of other packages, which take maps. features (C, *feature_size), pred (T, *size).
    """
    thresholds, above = _thresholds(features, pred)
    size = pred.shape[1:]
    for rows, chunk in _chunks(features, size, variant):
        for t in range(len(pred)):
            foreground = chunk > thresholds[rows, t, None]
            yield t, (foreground == above[rows, t, None]).reshape(-1, *size)


def group_maps(features: Tensor, pred: Tensor, group_channels: int) -> Tensor:
    """Maps (G, T, *size) bool of one image."""
    margin, threshold = _margin(features, pred, group_channels)
    return margin > threshold.reshape(*threshold.shape, *(1,) * (margin.dim() - 2))


def _score_units(features: Tensor, pred: Tensor, target: Tensor, variant: Variant) -> Tensor:
    """Scores (C, T) of one image."""
    thresholds, above = _thresholds(features, pred)
    size, targets = pred.shape[1:], len(pred)
    voxels = math.prod(size)
    predicted, tp = (thresholds.new_empty(thresholds.shape) for _ in range(2))
    actual = _countable(target, variant)
    buffer: Tensor | None = None
    for rows, chunk in _chunks(features, size, variant):
        if buffer is None:
            dtype = torch.bool if variant.count == "bool" else chunk.dtype
            buffer = torch.empty_like(chunk, dtype=dtype)
        foreground = buffer[: len(chunk)]
        for t in range(targets):
            torch.gt(chunk, thresholds[rows, t, None], out=foreground)
            tp[rows, t], predicted[rows, t] = _count(foreground, actual[t])
    # Features below their threshold are what is left over.
    positives = _total(actual).to(tp.dtype)
    tp = torch.where(above, tp, positives - tp)
    predicted = torch.where(above, predicted, voxels - predicted)
    return 2 * tp / (predicted + positives)


def _score_groups(
    features: Tensor, pred: Tensor, target: Tensor, group_channels: int, variant: Variant
) -> Tensor:
    """Scores (G, T) of one image: one projection per group and target."""
    margin, threshold = _margin(features, pred, group_channels)
    flat = margin.flatten(2)
    actual = _countable(target, variant)
    tp, predicted = (torch.empty_like(threshold) for _ in range(2))
    dtype = torch.bool if variant.count == "bool" else flat.dtype
    for t in range(len(pred)):
        foreground = torch.empty_like(flat[:, t], dtype=dtype)
        torch.gt(flat[:, t], threshold[:, t, None], out=foreground)
        tp[:, t], predicted[:, t] = _count(foreground, actual[t])
    return 2 * tp / (predicted + _total(actual))


def _countable(target: Tensor, variant: Variant) -> Tensor:
    """Targets (T, voxels) in the dtype that they are counted in."""
    flat = target.flatten(1)
    return flat if variant.count == "bool" else flat.float()


def _total(actual: Tensor) -> Tensor:
    return actual.sum(1, dtype=torch.int32 if actual.dtype == torch.bool else None)


def _count(foreground: Tensor, actual: Tensor) -> tuple[Tensor, Tensor]:
    """True positives and predicted, (units,); exact in float32 below 2^24 voxels."""
    if foreground.dtype == torch.bool:
        return (foreground & actual).sum(1, dtype=torch.int32), foreground.sum(1, dtype=torch.int32)
    return foreground @ actual.to(foreground.dtype), foreground.sum(1)


def _chunks(
    features: Tensor, size: tuple[int, ...], variant: Variant
) -> Iterator[tuple[slice, Tensor]]:
    """Units (rows, voxels) at the size of the target, a cacheful at a time."""
    rows = max(1, variant.chunk_bytes // (4 * math.prod(size)))
    same_size = features.shape[1:] == size
    matrices = None if same_size or variant.upsample != "matmul" else _matrices(features, size)
    for start in range(0, len(features), rows):
        chunk = _widen(features[start : start + rows])
        if matrices is not None:
            chunk = _upsample(chunk, matrices)
        elif not same_size:
            chunk = functional.interpolate(chunk[None], size, mode=MODES[len(size)])[0]
        yield slice(start, start + rows), chunk.flatten(1)


def _widen(features: Tensor) -> Tensor:
    return features.float() if features.dtype.itemsize == 2 else features


def _prototypes(features: Tensor, pred: Tensor) -> tuple[Tensor, Tensor]:
    """Positive and negative prototypes (C, T) of one image: the features are read, not resized."""
    small = _widen(features).flatten(1)
    weight = pred.to(small.dtype)
    total_weight = weight.flatten(1).sum(1)
    voxels = math.prod(pred.shape[1:])
    if features.shape[1:] == pred.shape[1:]:
        total = small.sum(1, keepdim=True)
    else:  # the adjoint: resize the weights down instead of the features up
        matrices = _matrices(features, pred.shape[1:])
        weight = _downsample(torch.cat([weight, torch.ones_like(weight[:1])]), matrices)
        weight, everything = weight[:-1], weight[-1:]
        total = small @ everything.flatten(1).T
    flat = weight.flatten(1)
    positive = (small @ flat[0])[:, None] if len(flat) == 1 else small @ flat.T
    return positive / total_weight, (total - positive) / (voxels - total_weight)


def _thresholds(features: Tensor, pred: Tensor) -> tuple[Tensor, Tensor]:
    """Thresholds (C, T) and whether foreground lies above them; below counts as "not above".

    f < m is the same as not f > (the float before m), so that one comparison serves both sides.
    """
    positive, negative = _prototypes(features, pred)
    middle = (positive + negative) / 2
    above = positive > negative
    before = torch.nextafter(middle, torch.full_like(middle, -torch.inf))
    return torch.where(above, middle, before), above


def _margin(features: Tensor, pred: Tensor, group_channels: int) -> tuple[Tensor, Tensor]:
    """Projections (G, T, *size) of one image, and the thresholds (G, T) that decide them."""
    positive, negative = (
        p.unflatten(0, (-1, group_channels)) for p in _prototypes(features, pred)
    )  # (G, c, T)
    normal = positive - negative
    threshold = (positive.square() - negative.square()).sum(1) / 2
    small = _widen(features).flatten(1).unflatten(0, (-1, group_channels))
    projection = torch.bmm(normal.transpose(1, 2), small).unflatten(2, features.shape[1:])
    size = pred.shape[1:]
    if features.shape[1:] != size:
        projection = functional.interpolate(projection, size, mode=MODES[len(size)])
    return projection, threshold


def _matrices(features: Tensor, size: tuple[int, ...]) -> list[Tensor]:
    """The resizing of each axis as a matrix (n_in, n_out)."""
    dtype = _widen(features[:0]).dtype
    return [
        functional.interpolate(
            torch.eye(n_in, dtype=dtype, device=features.device)[None], n_out, mode="linear"
        )[0]
        for n_in, n_out in zip(features.shape[1:], size, strict=True)
    ]


def _upsample(x: Tensor, matrices: list[Tensor]) -> Tensor:
    """(rows, *feature_size) -> (rows, *size), the first axis first, while there is little of it."""
    for axis, matrix in enumerate(matrices, start=1):
        x = _along(x, matrix, axis)
    return x


def _downsample(x: Tensor, matrices: list[Tensor]) -> Tensor:
    """The adjoint of `_upsample`."""
    for axis, matrix in reversed(list(enumerate(matrices, start=1))):
        x = _along(x, matrix.T, axis)
    return x


def _along(x: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """Product with a matrix (n_in, n_out) along one axis."""
    if axis == x.dim() - 1:
        return x @ matrix
    rest = x.shape[axis + 1 :]
    flat = x.flatten(axis + 1)
    return (matrix.T.contiguous() @ flat).unflatten(-1, rest)


def fusible_units(features: Tensor, pred: Tensor, target: Tensor) -> Tensor:
    """Scores (N, C, T) written for `torch.compile`: it fuses resizing, comparing and counting."""
    size = pred.shape[2:]
    axes = tuple(range(2, pred.dim()))
    f = _widen(features)
    at_size = f
    if features.shape[2:] != size:
        at_size = functional.interpolate(f, size, mode=MODES[len(size)])
    scores = []
    for t in range(pred.shape[1]):
        p, g = pred[:, t : t + 1].to(f.dtype), target[:, t : t + 1]
        a = (at_size * p).sum(axes, keepdim=True) / p.sum(axes, keepdim=True)
        rest = 1 - p
        b = (at_size * rest).sum(axes, keepdim=True) / rest.sum(axes, keepdim=True)
        side, middle = torch.sign(a - b), (a + b) / 2
        foreground = at_size * side > middle * side
        # float sums vectorise, sums of booleans do not
        tp = torch.where(foreground & g, 1.0, 0.0).sum(axes)
        predicted = torch.where(foreground, 1.0, 0.0).sum(axes)
        scores.append(2 * tp / (predicted + g.float().sum(axes)))
    return torch.stack(scores, dim=2)
