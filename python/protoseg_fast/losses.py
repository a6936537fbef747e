"""Losses to train with: hidden layers that segment on their own. Imports torch."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from protoseg_fast._soft_counts import soft_counts
from protoseg_fast.guide import Groups, Interpolation, Metric
from protoseg_fast.torch_ops import operator_options

__all__ = ["SALoss", "sa_loss"]

Reduction = Literal["mean", "sum", "none"]


def sa_loss(
    features: Tensor,
    pred: Tensor,
    target: Tensor,
    mask: Tensor | None = None,
    *,
    groups: Groups = "layer",
    reduction: Reduction = "mean",
    metric: Metric = "euclidean",
    temperature: float = 1.0,
    interpolation: Interpolation = "linear",
    align_corners: bool = False,
    binarize: float | None = None,
) -> Tensor:
    """Return one minus the soft Dice of the prototype probability against the target.

    With P = sigmoid(margin) of a group (`protoseg_fast.probability`), G the target and m the mask,

        loss = 1 - 2 sum m P G / (sum m P + sum m G)

    This is this package's own soft form of the SA score. He et al. (2023, arXiv:2212.09206) also
    train with segmentation ability, in what they call the online variant: scores of hidden layers
    take part in the training of the network. No formula of theirs is claimed here.

    Features may be of another size than pred and are never resized for the euclidean metric. The
    probability is not kept: groups are computed a few at a time, and again in the backward pass, so
    that ``groups="unit"`` takes a few MiB and the features' gradient.

    Args:
        features: (N, C, *feature_size) float16, bfloat16, float32 or float64.
        pred: (N, T, *size) floating probabilities in [0, 1]; guides the prototypes. Pass
            ``pred.detach()`` to train the layer alone.
        target: (N, T, *size) boolean, integer or floating, 0 or 1. Not differentiable: one that
            requires grad is refused.
        mask: (N, 1, *size) voxels that count, or their weights >= 0; None: all.
        groups: "layer", "unit" or a number of groups of consecutive channels.
        reduction: "mean" over the images, groups and targets whose probability is defined (0 if
            there are none), "sum" over them, or "none".
        metric, temperature, interpolation, align_corners, binarize: see
            `protoseg_fast.probability`, also for the range of norms of the cosine metric.

    Returns:
        A scalar, in [0, 1] for "mean"; or (N, G, T) for "none", NaN where a prototype is undefined
        or a feature not finite. float32, float64 for float64 features. Differentiable in features,
        pred and mask; undefined groups that are left out get a gradient of exactly 0, of any order.

    Raises:
        ValueError: for shapes, values or options that do not fit.
        TypeError: for anything but torch tensors of fitting dtypes.

    Examples:
        >>> import torch
        >>> features = torch.randn(1, 8, 16, 16, requires_grad=True)
        >>> pred, target = torch.rand(1, 1, 32, 32), torch.rand(1, 1, 32, 32) > 0.5
        >>> loss = sa_loss(features, pred, target)
        >>> loss.backward()
        >>> features.grad.shape
        torch.Size([1, 8, 16, 16])
    """
    _check(features, pred, target, mask, reduction)
    options = operator_options(
        features, groups, metric, temperature, interpolation, align_corners, binarize
    )
    tp, predicted = soft_counts(features, pred, target, mask, *options)
    weight = target.double() if mask is None else target.double() * mask.double()
    total = predicted + weight.flatten(2).sum(2)[:, None]
    defined = ~total.isnan()
    # Nothing in either: P underflowed everywhere and there is no target.
    empty = total == 0
    # NaN is taken out before the division, so that it has no gradient either.
    zero = torch.zeros_like(total)
    inside = defined & ~empty
    dice = 2 * torch.where(inside, tp, zero) / torch.where(inside, total, zero + 1)
    loss = 1 - dice
    result = _reduce(loss, defined, reduction)
    return result if features.dtype == torch.float64 else result.float()


class SALoss(nn.Module):
    """`sa_loss` as a module: options in the constructor, tensors in the call. No parameters.

    Examples:
        >>> import torch
        >>> criterion = SALoss(groups="unit")
        >>> features = torch.randn(1, 8, 16, 16)
        >>> pred, target = torch.rand(1, 1, 16, 16), torch.rand(1, 1, 16, 16) > 0.5
        >>> criterion(features, pred, target).shape
        torch.Size([])
    """

    def __init__(self, **options: Any) -> None:
        """Take the keyword arguments of `sa_loss`."""
        super().__init__()
        known = sorted(sa_loss.__kwdefaults__ or {})
        unknown = sorted(options.keys() - set(known))
        if unknown:
            raise TypeError(
                f"SALoss takes the keyword arguments of sa_loss, {known}, got {unknown}."
            )
        self.options = options

    def extra_repr(self) -> str:
        """Show the options."""
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())

    def forward(
        self, features: Tensor, pred: Tensor, target: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Return the loss; arguments, result and errors are those of `sa_loss`."""
        return sa_loss(features, pred, target, mask, **self.options)


def _check(
    features: Tensor, pred: Tensor, target: Tensor, mask: Tensor | None, reduction: str
) -> None:
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f'reduction must be "mean", "sum" or "none", got {reduction!r}.')
    given = {"features": features, "pred": pred, "target": target}
    for name, tensor in given.items() if mask is None else {**given, "mask": mask}.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a torch tensor, got {type(tensor).__name__}.")
        if tensor.device != features.device:
            raise TypeError(
                f"All tensors must be on one device, but features is on {features.device} and "
                f"{name} on {tensor.device}."
            )
    if torch.is_grad_enabled() and target.requires_grad:
        raise ValueError(
            "target requires grad, but it is 0 or 1 and no gradient goes to it; pass "
            "target.detach()."
        )
    if target.shape != pred.shape:
        raise ValueError(
            f"target must have the shape of pred, {tuple(pred.shape)} (N, T, *size), got "
            f"{tuple(target.shape)}."
        )


def _reduce(loss: Tensor, defined: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return torch.where(defined, loss, torch.nan)
    total = torch.where(defined, loss, 0).sum()
    return total if reduction == "sum" else total / defined.sum().clamp(min=1)
