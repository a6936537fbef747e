"""One call each: features and a guide in; scores, counts, maps, prototypes out."""

from __future__ import annotations

import sys
from typing import Any

from protoseg_fast.counts import Counts, Prototypes
from protoseg_fast.guide import Empty, Groups, Guide, Interpolation, Metric

__all__ = ["probability", "prototypes", "sa_counts", "sa_score", "segment"]


def sa_score(
    features: Any,
    pred: Any,
    target: Any,
    mask: Any = None,
    *,
    groups: Groups = 1,
    metric: Metric = "euclidean",
    interpolation: Interpolation = "linear",
    align_corners: bool = False,
    binarize: float | None = None,
    empty: Empty = "nan",
) -> Any:
    """Score how well every group of channels segments the target on its own.

    The SA score is Dice(margin > 0, target) = 2 TP / (|S| + |G|), where the margin says how
    much nearer a voxel's features are to the positive than to the negative prototype
    (He et al., "Segmentation ability map", Medical Image Analysis 2023, arXiv:2212.09206; the
    authors' ProtoSeg module). Features of another size than pred are never resized: their weights
    and margins are.

    Args:
        features: (N, C, *feature_size) float16, bfloat16, float32 or float64; read in place.
        pred: (N, T, *size) floating probabilities in [0, 1].
        target: (N, T, *size) 0 or 1; None scores against pred > 0.5.
        mask: (N, 1, *size) voxels that count, or their weights >= 0; None: all.
        groups: 1 or "layer" (all channels together), C or "unit" (each alone), or any divisor of
            C: consecutive channels, as in `torch.nn.GroupNorm`.
        metric: "euclidean": margin = |f - b|² - |f - a|² (the authors' code); "cosine":
            cos(f, a) - cos(f, b).
        interpolation: how features of another size are understood at ``size``: "linear" or
            "nearest", as in `torch.nn.functional.interpolate`.
        align_corners: as in `torch.nn.functional.interpolate`, for "linear".
        binarize: average under pred > binarize instead of pred.
        empty: worth of empty masks: "nan", "monai", "one" or "zero"; see `Counts.score`.

    Returns:
        (N, G, T) float64 in [0, 1] of the caller's array kind. NaN where a prototype is
        undefined, a feature of the group is NaN or infinite, or ``empty`` says so.

    Raises:
        ValueError: for shapes, values or options that do not fit.
        TypeError: for dtypes, devices or array kinds that do not fit.

    Examples:
        >>> import numpy as np
        >>> target = np.zeros((1, 1, 8, 8), bool)
        >>> target[..., 2:6, 2:6] = True
        >>> features = np.stack([target[0, 0], np.ones((8, 8))])[None].astype(np.float32)
        >>> sa_score(features, target.astype(np.float32), target, groups="unit")[0, :, 0]
        array([1., 0.])
    """
    guide = Guide(pred, target, mask, binarize=binarize)
    return guide.sa_score(
        features,
        groups=groups,
        metric=metric,
        interpolation=interpolation,
        align_corners=align_corners,
        empty=empty,
    )


def sa_counts(
    features: Any,
    pred: Any,
    target: Any,
    mask: Any = None,
    *,
    groups: Groups = 1,
    metric: Metric = "euclidean",
    interpolation: Interpolation = "linear",
    align_corners: bool = False,
    binarize: float | None = None,
) -> Counts:
    """Count the voxels of map and target for every group of channels.

    Arguments and errors are those of `sa_score`. Counts keep what scores throw away: they merge
    over windows and shards, and give Dice, IoU, precision and recall under any policy for empty
    masks.

    Returns:
        Counts: tp, predicted, actual (N, G, T) int64 over voxels with mask > 0, voxels (N, 1, 1).

    Examples:
        >>> import numpy as np
        >>> target = np.arange(8).reshape(1, 1, 8) >= 5
        >>> counts = sa_counts(target.astype(np.float32), target.astype(np.float32), target)
        >>> counts.tp.item(), counts.voxels.item(), (counts + counts).tp.item()
        (3, 8, 6)
    """
    guide = Guide(pred, target, mask, binarize=binarize)
    return guide.sa_counts(
        features,
        groups=groups,
        metric=metric,
        interpolation=interpolation,
        align_corners=align_corners,
    )


def segment(
    features: Any,
    pred: Any,
    mask: Any = None,
    *,
    groups: Groups = 1,
    metric: Metric = "euclidean",
    interpolation: Interpolation = "linear",
    align_corners: bool = False,
    binarize: float | None = None,
) -> Any:
    """Label every voxel by the nearer prototype: margin > 0, a tie is background.

    Arguments and errors are those of `sa_score`. The map is computed everywhere, inside and
    outside the mask, as the authors' code does.

    Returns:
        (N, G, T, *size) bool; all background where a prototype is undefined or a feature of the
        group is not finite.
    """
    guide = Guide(pred, None, mask, binarize=binarize)
    return guide.segment(
        features,
        groups=groups,
        metric=metric,
        interpolation=interpolation,
        align_corners=align_corners,
    )


def probability(
    features: Any,
    pred: Any,
    mask: Any = None,
    *,
    groups: Groups = 1,
    metric: Metric = "euclidean",
    temperature: float = 1.0,
    interpolation: Interpolation = "linear",
    align_corners: bool = False,
    binarize: float | None = None,
) -> Any:
    """Return sigmoid(margin), the second entry of the authors' two-way softmax.

    Arguments and errors are those of `sa_score`; ``temperature`` (> 0) multiplies the cosine
    margin.

    Torch tensors: differentiable with respect to features, pred and mask if they require grad, and
    traced by torch.compile and torch.export as the operator ``torch.ops.protoseg_fast.margin``
    (docs/gradients.md). With ``binarize``, pred is a step and its gradient 0. Gradients of the
    cosine metric need norms |f| of 1e-18 to 1e18, or 0, unless features are float64: their squares
    are kept in float32. The probability itself does not.

    Returns:
        (N, G, T, *size) float32, float64 for float64 features; NaN where a prototype is
        undefined or a feature of the group is not finite.
    """
    if _traced_by_torch(features, pred, mask):
        from protoseg_fast import torch_ops

        margin = torch_ops.margin(
            features,
            pred,
            mask,
            groups=groups,
            metric=metric,
            temperature=temperature,
            interpolation=interpolation,
            align_corners=align_corners,
            binarize=binarize,
        )
        return torch_ops.sigmoid(margin)
    guide = Guide(pred, None, mask, binarize=binarize)
    return guide.probability(
        features,
        groups=groups,
        metric=metric,
        temperature=temperature,
        interpolation=interpolation,
        align_corners=align_corners,
    )


def prototypes(
    features: Any,
    pred: Any,
    mask: Any = None,
    *,
    interpolation: Interpolation = "linear",
    align_corners: bool = False,
    binarize: float | None = None,
) -> Prototypes:
    """Average the features under pred and under 1 - pred.

    a = sum(M P U f) / sum(M P), b = sum(M (1-P) U f) / sum(M (1-P)), with U the resizing to the
    size of pred (identity when the sizes agree), M the mask and P the pred. Arguments and errors
    are those of `sa_score`.

    Returns:
        Prototypes: positive, negative (N, T, C) float64 and their weights (N, T); they merge with
        ``+`` over windows and shards.
    """
    guide = Guide(pred, None, mask, binarize=binarize)
    return guide.prototypes(features, interpolation=interpolation, align_corners=align_corners)


def _traced_by_torch(*arrays: Any) -> bool:
    """Tell whether torch records what is done with these tensors, for gradients or to compile."""
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    given = [x for x in arrays if x is not None]
    if not all(isinstance(x, torch.Tensor) and (x.is_cpu or x.is_cuda) for x in given):
        return False
    from protoseg_fast import _formula

    recorded = torch.is_grad_enabled() and any(x.requires_grad for x in given)
    return recorded or torch.compiler.is_compiling() or _formula.is_needed(*given)
