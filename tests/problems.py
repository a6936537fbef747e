"""Random problems for the engine, shared by the tests: shapes, dtypes, layouts, kinds of data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

DTYPES = ("float16", "bfloat16", "float32", "float64")
LAYOUTS = ("contiguous", "channels_last", "sliced", "reversed", "broadcast", "transposed")
DATA = ("normal", "offset", "smooth", "sparse", "ties", "tiny", "mixed")
MASKS = (None, "bool", "uint8", "weights", "int64")
RESIZE = ({}, {"align_corners": True}, {"interpolation": "nearest"})


@dataclass
class Problem:
    """One call's arguments; features may be of any kind, the rest are NumPy arrays."""

    features: Any  # (N, C, *feature_size)
    pred: np.ndarray  # (N, T, *size)
    target: np.ndarray  # (N, T, *size)
    mask: np.ndarray | None  # (N, 1, *size)
    options: dict[str, Any] = field(default_factory=dict)  # groups, metric, ...
    resize: dict[str, Any] = field(default_factory=dict)  # interpolation, align_corners

    @property
    def guide(self) -> tuple[Any, ...]:
        """Arguments of Guide, of the features' kind."""
        arrays = (self.pred, self.target, self.mask)
        if isinstance(self.features, torch.Tensor):
            return tuple(None if a is None else torch.from_numpy(a) for a in arrays)
        return arrays

    @property
    def exact(self) -> np.ndarray:
        """The features' values in float64."""
        f = self.features
        return f.double().numpy() if isinstance(f, torch.Tensor) else f.astype(np.float64)

    @property
    def tolerance(self) -> float:
        """Relative tolerance of prototypes for the features' dtype."""
        return 1e-11 if self.features.dtype in (np.float64, torch.float64) else 1e-6


def feature_data(
    rng: np.random.Generator, kind: str, n: int, channels: int, size: tuple[int, ...]
) -> np.ndarray:
    """Return (N, C, *size) float64 of the given kind."""
    x = rng.normal(size=(n, channels, *size))
    if kind == "offset":
        return x + 100 * rng.normal(size=(n, channels, *(1,) * len(size)))
    if kind == "smooth":
        for axis in range(2, x.ndim):
            x = x.cumsum(axis)
        return x
    if kind == "sparse":  # after a ReLU
        return np.maximum(x - 1, 0)
    if kind == "ties":
        return np.round(x)
    if kind == "tiny":
        return x * 1e-4
    if kind == "mixed":  # constant channels beside wide ones
        x[:, ::2] = rng.normal(size=(n, (channels + 1) // 2, *(1,) * len(size)))
        return x
    return x


def with_layout(rng: np.random.Generator, layout: str, x: Any) -> Any:
    """Return the same values in memory of another layout (NumPy array or torch tensor)."""
    axes = list(range(x.ndim))
    empty = torch.empty if isinstance(x, torch.Tensor) else np.empty
    if layout == "contiguous":
        return x
    if layout == "broadcast":  # one channel, repeated with stride 0
        first = x[:, :1]
        if isinstance(x, torch.Tensor):
            return first.expand(x.shape)
        return np.broadcast_to(first, x.shape)
    if layout in ("channels_last", "transposed"):
        order = [0, *axes[2:], 1] if layout == "channels_last" else [*axes[::-1]]
        target = empty([x.shape[a] for a in order], dtype=x.dtype)
        permute = target.permute if isinstance(x, torch.Tensor) else target.transpose
        view = permute(*(int(i) for i in np.argsort(order)))
    elif layout == "sliced":  # every other voxel of something larger
        target = empty([2 * s + 1 for s in x.shape], dtype=x.dtype)
        view = target[tuple(slice(1, None, 2) for _ in axes)]
    else:  # reversed, which torch has no strides for
        if isinstance(x, torch.Tensor):
            return x
        view = empty(x.shape, dtype=x.dtype)[tuple(slice(None, None, -1) for _ in axes)]
    view[...] = x
    return view


def make_mask(rng: np.random.Generator, kind: str | None, n: int, size: tuple[int, ...]) -> Any:
    """Return (N, 1, *size) or None."""
    if kind is None:
        return None
    inside = rng.random((n, 1, *size)) < 0.8
    if kind == "weights":
        return (inside * rng.random(inside.shape) * 3).astype(np.float32)
    return inside.astype(kind)


def cast(x: np.ndarray, dtype: str) -> Any:
    """Return features of a dtype: torch for bfloat16, which NumPy lacks."""
    if dtype == "bfloat16":
        return torch.from_numpy(x).to(torch.bfloat16)
    return x.astype(dtype)


@st.composite
def problems(draw: st.DrawFn, *, resized: bool | None = None) -> Problem:
    """Problems of all shapes and kinds; ``resized`` fixes whether features have another size."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1), label="seed"))
    rank = draw(st.integers(1, 3), label="rank")
    longest = {1: 3000, 2: 70, 3: 18}[rank]
    sizes = st.integers(1, longest)
    size = tuple(draw(sizes, label="size") for _ in range(rank))
    if resized is None:
        resized = draw(st.booleans(), label="resized")
    feature_size = tuple(draw(sizes, label="feature_size") for _ in size) if resized else size
    n, targets = draw(st.integers(1, 2), label="N"), draw(st.integers(1, 3), label="T")
    groups = draw(st.sampled_from([1, 2, 3, "layer", "unit"]), label="groups")
    channels = draw(st.integers(1, 20), label="C")
    if isinstance(groups, int):
        channels *= groups
    kind = draw(st.sampled_from(DATA), label="data")
    dtype = draw(st.sampled_from(DTYPES), label="dtype")
    layout = draw(st.sampled_from(LAYOUTS), label="layout")
    features = cast(feature_data(rng, kind, n, channels, feature_size), dtype)
    pred = rng.random((n, targets, *size)) ** draw(st.sampled_from([1, 4, 40]), label="power")
    target = rng.random(pred.shape) < 0.3
    return Problem(
        with_layout(rng, layout, features),
        pred.astype(draw(st.sampled_from(["float32", "float64", "float16"]), label="pred dtype")),
        target.astype(draw(st.sampled_from(["bool", "uint8", "float32"]), label="target dtype")),
        make_mask(rng, draw(st.sampled_from(MASKS), label="mask"), n, size),
        {"groups": groups, "metric": draw(st.sampled_from(["euclidean", "cosine"]))},
        draw(st.sampled_from(RESIZE), label="resize"),
    )


def rounding_band(problem: Problem, boundary: Any, group_count: int) -> np.ndarray:
    """Half-width (N, G, T) of the margins that double rounding may move across 0.

    A margin is a sum over the group's channels of squares of features and prototypes; each
    operation errs by at most 1e-16 of them, and no chain here is longer than a few thousand.
    """
    f = np.abs(problem.exact)
    largest = f.reshape(*f.shape[:2], -1).max(axis=2)[:, None]  # (N, 1, C)
    n, targets, channels = boundary.positive.shape
    if problem.options.get("metric") == "cosine":
        return np.full((n, group_count, targets), 1e-12)
    squares = (largest + np.abs(boundary.positive) + np.abs(boundary.negative)) ** 2
    grouped = squares.reshape(n, targets, group_count, channels // group_count).sum(axis=3)
    return 1e-13 * grouped.transpose(0, 2, 1)
