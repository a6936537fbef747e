"""The specification: the segmentation ability map written directly in float64 NumPy.

No cleverness and no speed: features are resized to the size of pred and every formula stands as
in the paper (He et al., "Segmentation ability map", Medical Image Analysis 2023,
arXiv:2212.09206). Every backend of the engine is tested against this module. Arguments are those
of the functions of the same name in `protoseg_fast`; anything `np.asarray` understands, results in
NumPy float64.

Two sentences fix what real arithmetic leaves open: prototypes are averaged relative to the first
voxel of each channel, and interpolation is a + w (b - a). Both give a constant channel equal
prototypes exactly, so that rounding noise decides nothing.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

__all__ = [
    "Boundary",
    "CountArrays",
    "boundary_margin",
    "margin",
    "probability",
    "prototypes",
    "resize",
    "sa_counts",
    "sa_score",
    "score",
    "segment",
]

Groups = int | Literal["layer", "unit"]


class Boundary(NamedTuple):
    """Prototypes: positive and negative, (N, T, C) float64, NaN where undefined."""

    positive: np.ndarray
    negative: np.ndarray


class CountArrays(NamedTuple):
    """Integer counts (N, G, T) over voxels with mask > 0; ``defined`` is False for NaN scores."""

    tp: np.ndarray
    predicted: np.ndarray
    actual: np.ndarray
    voxels: np.ndarray
    defined: np.ndarray


def resize(
    features: Any,
    size: tuple[int, ...],
    interpolation: str = "linear",
    align_corners: bool = False,
) -> np.ndarray:
    """Resize (N, C, *feature_size) to (N, C, *size), as torch's interpolate does, in float64."""
    values = _float64(features)
    for axis, n_out in enumerate(size, start=2):
        values = _resize_axis(values, axis, n_out, interpolation, align_corners)
    return values


def prototypes(
    features: Any,
    pred: Any,
    mask: Any = None,
    *,
    interpolation: str = "linear",
    align_corners: bool = False,
    binarize: float | None = None,
) -> Boundary:
    """Return a = sum(M P U f) / sum(M P) and b = sum(M (1-P) U f) / sum(M (1-P))."""
    p = _guide(pred, binarize)
    m = np.ones_like(p[:, :1]) if mask is None else _float64(mask)
    f = resize(features, p.shape[2:], interpolation, align_corners)
    return Boundary(_weighted_mean(f, m * p), _weighted_mean(f, m * (1 - p)))


def boundary_margin(
    features: Any,
    boundary: Boundary,
    size: tuple[int, ...],
    *,
    groups: Groups = 1,
    metric: str = "euclidean",
    temperature: float = 1.0,
    interpolation: str = "linear",
    align_corners: bool = False,
) -> np.ndarray:
    """Return the margin (N, G, T, *size) of features at given prototypes.

    euclidean: |f - b|² - |f - a|²; cosine: temperature (cos(f, a) - cos(f, b)), where the
    cosine with a zero vector is 0. NaN where a prototype is undefined or any feature of the group,
    anywhere, is not finite.
    """
    f = resize(features, size, interpolation, align_corners)
    n, channels = f.shape[:2]
    n_groups = {"layer": 1, "unit": channels}[groups] if isinstance(groups, str) else groups
    # (N, G, T, channels of the group, *size)
    f = f.reshape(n, n_groups, 1, channels // n_groups, *size)
    with np.errstate(invalid="ignore", over="ignore"):
        a, b = (_spread(p, n_groups, len(size)) for p in boundary)
        if metric == "euclidean":
            result = ((f - b) ** 2 - (f - a) ** 2).sum(axis=3)
        else:
            result = temperature * (_cosine(f, a) - _cosine(f, b))
    undefined = ~(np.isfinite(a) & np.isfinite(b)).all(axis=3) | ~_finite_groups(features, n_groups)
    return np.where(undefined.reshape(*undefined.shape[:3], *(1,) * len(size)), np.nan, result)


def margin(features: Any, pred: Any, mask: Any = None, **options: Any) -> np.ndarray:
    """Return the margin (N, G, T, *size): how much nearer the positive prototype is."""
    shared = {k: options[k] for k in ("interpolation", "align_corners") if k in options}
    boundary = prototypes(features, pred, mask, binarize=options.pop("binarize", None), **shared)
    return boundary_margin(features, boundary, _float64(pred).shape[2:], **options)


def segment(features: Any, pred: Any, mask: Any = None, **options: Any) -> np.ndarray:
    """Return margin > 0, (N, G, T, *size) bool; a tie or an undefined margin is background."""
    return margin(features, pred, mask, **options) > 0


def probability(features: Any, pred: Any, mask: Any = None, **options: Any) -> np.ndarray:
    """Return sigmoid(margin), (N, G, T, *size); NaN where the margin is undefined."""
    m = margin(features, pred, mask, **options)
    e = np.exp(-np.abs(m))
    return np.where(m >= 0, 1, e) / (1 + e)


def sa_counts(
    features: Any, pred: Any, target: Any, mask: Any = None, **options: Any
) -> CountArrays:
    """Count voxels with mask > 0 in the map, in the target, and in both."""
    m = margin(features, pred, mask, **options)
    reference = _float64(pred) > 0.5 if target is None else _float64(target) > 0
    valid = np.ones_like(reference[:, :1]) if mask is None else _float64(mask) > 0
    axes = tuple(range(3, m.ndim))
    s = (m > 0) & valid[:, None]
    g = np.broadcast_to((reference & valid)[:, None], s.shape)
    return CountArrays(
        tp=(s & g).sum(axis=axes),
        predicted=s.sum(axis=axes),
        actual=g.sum(axis=axes),
        voxels=valid.sum(axis=tuple(range(2, valid.ndim)))[:, :, None],
        defined=~np.isnan(m).any(axis=axes),
    )


def score(counts: CountArrays, name: str = "dice", empty: str = "nan") -> np.ndarray:
    """Return dice = 2 TP / (S + G), iou = TP / (S + G - TP), precision = TP / S or recall = TP / G.

    ``empty`` says what empty masks are worth, see `protoseg_fast.Counts.score`.
    """
    tp, s, g = counts.tp, counts.predicted, counts.actual
    ratio = {
        "dice": (2 * tp, s + g),
        "iou": (tp, s + g - tp),
        "precision": (tp, s),
        "recall": (tp, g),
    }[name]
    no_map = g == 0 if name == "recall" else s == 0
    no_target = s == 0 if name == "precision" else g == 0
    values = ratio[0] / np.maximum(ratio[1], 1)
    both = {"nan": np.nan, "monai": np.nan, "one": 1.0, "zero": 0.0}[empty]
    values = np.where(no_map & no_target, both, values)
    if empty == "monai":
        values = np.where(no_target, np.nan, values)
    return np.where(counts.defined, values, np.nan)


def sa_score(
    features: Any, pred: Any, target: Any, mask: Any = None, *, empty: str = "nan", **options: Any
) -> np.ndarray:
    """Return the SA score (N, G, T): Dice(margin > 0, target) over voxels with mask > 0."""
    return score(sa_counts(features, pred, target, mask, **options), "dice", empty)


def _float64(array: Any) -> np.ndarray:
    if hasattr(array, "detach"):  # torch, whose bfloat16 NumPy does not know
        array = array.detach().double().numpy()
    return np.asarray(array, dtype=np.float64)


def _guide(pred: Any, binarize: float | None) -> np.ndarray:
    p = _float64(pred)
    return p if binarize is None else (p > binarize).astype(np.float64)


def _weighted_mean(f: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(N, C, *size), (N, T, *size) -> (N, T, C)."""
    n, channels = f.shape[:2]
    f, weight = f.reshape(n, 1, channels, -1), weight.reshape(n, weight.shape[1], 1, -1)
    first = f[..., :1]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (weight * (f - first)).sum(axis=-1) / weight.sum(axis=-1)
        return first[..., 0] + mean


def _resize_axis(
    values: np.ndarray, axis: int, n_out: int, interpolation: str, align_corners: bool
) -> np.ndarray:
    n_in = values.shape[axis]
    if n_in == n_out:
        return values
    output = np.arange(n_out)
    if interpolation == "nearest":
        return values.take(output * n_in // n_out, axis)
    if align_corners:
        position = output * ((n_in - 1) / (n_out - 1) if n_out > 1 else 0.0)
    else:
        position = np.maximum((output + 0.5) * (n_in / n_out) - 0.5, 0.0)
    lower = np.minimum(position.astype(int), n_in - 1)
    upper = np.minimum(lower + 1, n_in - 1)
    weight = (position - lower).reshape(-1, *(1,) * (values.ndim - 1 - axis))
    a, b = values.take(lower, axis), values.take(upper, axis)
    with np.errstate(invalid="ignore"):
        return a + weight * (b - a)


def _spread(prototype: np.ndarray, groups: int, spatial: int) -> np.ndarray:
    """(N, T, C) -> (N, G, T, channels of the group, 1, ...)."""
    n, targets, channels = prototype.shape
    split = prototype.reshape(n, targets, groups, channels // groups).transpose(0, 2, 1, 3)
    return split.reshape(*split.shape, *(1,) * spatial)


def _cosine(f: np.ndarray, prototype: np.ndarray) -> np.ndarray:
    if f.shape[3] == 1:  # of a single channel: exactly the product of the signs
        return (np.sign(f) * np.sign(prototype)).sum(axis=3)
    norm = np.sqrt((f**2).sum(axis=3)) * np.sqrt((prototype**2).sum(axis=3))
    dot = (f * prototype).sum(axis=3)
    return np.divide(dot, norm, out=np.zeros_like(dot), where=norm > 0)


def _finite_groups(features: Any, groups: int) -> np.ndarray:
    """(N, G, 1, *1): every feature of the group is finite."""
    finite = np.isfinite(_float64(features))
    n, spatial = finite.shape[0], finite.ndim - 2
    return finite.reshape(n, groups, -1).all(axis=2).reshape(n, groups, 1, *(1,) * spatial)
