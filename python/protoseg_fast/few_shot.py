"""Masked average pooling and cosine prototypes of few-shot segmentation. Imports torch."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from protoseg_fast import _formula
from protoseg_fast.guide import Interpolation

__all__ = ["cosine_logits", "masked_average_pool"]


def masked_average_pool(
    features: Tensor,
    mask: Tensor,
    *,
    interpolation: Interpolation = "linear",
    align_corners: bool = False,
    eps: float = 1e-5,
) -> Tensor:
    """Average the features under masks: sum(M U f) / (sum(M) + eps).

    U resizes features to the size of the masks. It is linear, so its adjoint resizes the masks
    instead, and features are read where they lie.

    - PANet (Wang et al., ICCV 2019, eq. 1 and ``getFeatures``): features resized (bilinear) to the
      mask, sum over area + 1e-5: the defaults.
    - PFENet (Tian et al., TPAMI 2020, ``Weighted_GAP``): the mask is resized to the features first
      (bilinear, align_corners=True), area + 5e-4: resize the mask, then ``eps=5e-4``.
    - ALPNet (Ouyang et al., ECCV 2020, eq. 4, mode "mask"): both of one size, area + 1e-5.

    Args:
        features: (N, C, *feature_size) floating; ``feature_size`` has 1 to 3 axes.
        mask: (N, T, *size) boolean, integer or floating weights; not checked for their values.
        interpolation: how features of another size are understood, "linear" or "nearest".
        align_corners: as in `torch.nn.functional.interpolate`, for "linear".
        eps: added to the area.

    Returns:
        (N, T, C) float32, float64 for float64 features. Differentiable to any order in features and
        mask. 16-bit features are widened as a whole.

    Raises:
        ValueError: for shapes or options that do not fit.
        TypeError: for anything but torch tensors, features that are not floating.

    Examples:
        >>> import torch
        >>> masked_average_pool(torch.ones(1, 3, 4, 4), torch.ones(1, 2, 8, 8)).shape
        torch.Size([1, 2, 3])
    """
    _check_floating("features", features)
    if not isinstance(mask, Tensor):
        raise TypeError(f"mask must be a torch tensor, got {type(mask).__name__}.")
    if not 3 <= features.dim() == mask.dim() <= 5 or features.shape[0] != mask.shape[0]:
        raise ValueError(
            "features (N, C, *feature_size) and mask (N, T, *size) must have one N and 1 to 3 "
            f"spatial axes each, got shapes {tuple(features.shape)} and {tuple(mask.shape)}."
        )
    if interpolation not in ("linear", "nearest"):
        raise ValueError(f'interpolation must be "linear" or "nearest", got {interpolation!r}.')
    if interpolation == "nearest" and align_corners:
        raise ValueError('align_corners=True has no meaning for interpolation="nearest".')
    with torch.autocast(features.device.type, enabled=False):
        f = features.flatten(2).to(_formula.compute_dtype(features))
        m = mask.to(f.dtype)
        area = m.flatten(2).sum(2, keepdim=True)
        weights = _formula.adjoint(m, tuple(features.shape[2:]), interpolation, align_corners)
        return weights.flatten(2) @ f.transpose(1, 2) / (area + eps)


def cosine_logits(
    features: Tensor,
    prototypes: Tensor,
    *,
    scale: float = 20.0,
    pool: Literal["max", "softmax"] = "max",
    eps: float = 1e-8,
) -> Tensor:
    """Return scale x cosine between the features of every voxel and the prototypes of every class.

    cos(f, p) = f.p / (max(|f|, eps) max(|p|, eps)), as `torch.nn.functional.cosine_similarity`.

    - PANet (Wang et al., ICCV 2019, eq. 2 and ``calDist``, scaler 20): one prototype per class.
    - PFENet's prior (Tian et al., TPAMI 2020, eq. 3, eps 1e-7 added to the product of norms):
      all support voxels as prototypes of one class, ``scale=1``, ``pool="max"``.
    - ALPNet (Ouyang et al., ECCV 2020, eq. 5 and 6): ``eps=1e-4``; mode "mask" has one prototype,
      the grid modes pool many by softmax: ``pool="softmax"``.

    Args:
        features: (N, C, *size) floating.
        prototypes: (N, K, C), one for each of K classes, or (N, K, P, C), P for each; N may be 1.
        scale: multiplies the cosine, before pooling.
        pool: how the P logits of a class become one: their maximum, or their mean weighted by
            their softmax.
        eps: smallest norm.

    Returns:
        (N, K, *size) float32, float64 for float64 features. Differentiable to any order in features
        and prototypes. 16-bit features are widened as a whole.

    Raises:
        ValueError: for shapes or options that do not fit.
        TypeError: for anything but floating torch tensors.

    Examples:
        >>> import torch
        >>> cosine_logits(torch.randn(2, 8, 5, 5), torch.randn(1, 3, 4, 8)).shape
        torch.Size([2, 3, 5, 5])
    """
    _check_floating("features", features)
    _check_floating("prototypes", prototypes)
    if features.dim() < 3:
        raise ValueError(
            "features must have shape (N, C, *size), such as (N, C, 1) for one vector per image, "
            f"got {tuple(features.shape)}."
        )
    n, channels = features.shape[:2]
    if prototypes.dim() == 3:
        prototypes = prototypes.unsqueeze(2)
    if (
        prototypes.dim() != 4
        or prototypes.shape[0] not in (1, n)
        or prototypes.shape[3] != channels
    ):
        raise ValueError(
            f"prototypes must have shape (N, K, C) or (N, K, P, C) with N = 1 or {n} and "
            f"C = {channels} to go with features of shape {tuple(features.shape)}, got "
            f"{tuple(prototypes.shape)}."
        )
    if pool not in ("max", "softmax"):
        raise ValueError(f'pool must be "max" or "softmax", got {pool!r}.')
    with torch.autocast(features.device.type, enabled=False):
        dtype = _formula.compute_dtype(features)
        f, p = features.flatten(2).to(dtype), prototypes.to(dtype)
        p = p / torch.linalg.vector_norm(p, dim=3, keepdim=True).clamp(min=eps)
        norm = torch.linalg.vector_norm(f, dim=1).clamp(min=eps)[:, None, None]
        logits = scale * (p.flatten(1, 2) @ f).unflatten(1, p.shape[1:3]) / norm
        pooled = logits.amax(2) if pool == "max" else (logits.softmax(2) * logits).sum(2)
        return pooled.unflatten(2, features.shape[2:])


def _check_floating(name: str, tensor: Tensor) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a torch tensor, got {type(tensor).__name__}.")
    if not tensor.is_floating_point():
        raise TypeError(f"{name} must be floating, got {tensor.dtype}; call {name}.float() first.")
