"""The margin in plain torch operations: any device, derivatives of any order. Imports torch.

What the compiled operators are measured against, where they have no kernel for a device, and how
their second derivatives are taken. Features are resized for the norms of the cosine metric only.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

__all__ = [
    "adjoint",
    "compute_dtype",
    "defined_margin",
    "is_needed",
    "margin",
    "put_nan",
    "resize",
    "resize_matrix",
    "sigmoid",
]


def is_needed(*tensors: Tensor | None) -> bool:
    """Whether nothing else will do: under transforms of torch.func, and for dual tensors."""
    if torch._C._are_functorch_transforms_active():
        return True
    if torch.compiler.is_compiling():
        return False
    return any(x is not None and forward_ad.unpack_dual(x).tangent is not None for x in tensors)


def compute_dtype(features: Tensor) -> torch.dtype:
    """float64 for float64 features, float32 for all others."""
    return torch.float64 if features.dtype == torch.float64 else torch.float32


def _working_dtype(features: Tensor) -> torch.dtype:
    """`compute_dtype`, but float64 under autocast, which casts products of all other dtypes.

    It does so in backward passes, too, which whoever disables it for the forward pass cannot reach.
    """
    autocast = torch.is_autocast_enabled(features.device.type)
    return torch.float64 if autocast else compute_dtype(features)


def resize_matrix(
    n_in: int, n_out: int, interpolation: str, align_corners: bool, like: Tensor
) -> Tensor:
    """Return U of one axis, (n_out, n_in), of the dtype and device of ``like``: see resize.hpp."""
    output = torch.arange(n_out, device=like.device)
    if interpolation == "nearest":
        lower = output * n_in // n_out
        weight = torch.zeros(n_out, dtype=torch.float64, device=like.device)
    else:
        at = output.double()
        if align_corners:
            position = at * ((n_in - 1) / (n_out - 1) if n_out > 1 else 0.0)
        else:
            position = ((at + 0.5) * (n_in / n_out) - 0.5).clamp(min=0)
        lower = position.long().clamp(max=n_in - 1)
        weight = position - lower
    upper = (lower + 1).clamp(max=n_in - 1)
    column = torch.arange(n_in, device=like.device)
    at_lower = (column == lower[:, None]) * (1 - weight[:, None])
    return (at_lower + (column == upper[:, None]) * weight[:, None]).to(like.dtype)


def resize(x: Tensor, size: tuple[int, ...], interpolation: str, align_corners: bool) -> Tensor:
    """Resize (N, C, *feature_size) to (N, C, *size), coordinates in double."""
    for axis, n_out in enumerate(size, start=2):
        if x.shape[axis] != n_out:
            u = resize_matrix(x.shape[axis], n_out, interpolation, align_corners, x)
            x = (x.movedim(axis, -1) @ u.T).movedim(-1, axis)
    return x


def adjoint(
    x: Tensor, feature_size: tuple[int, ...], interpolation: str, align_corners: bool
) -> Tensor:
    """Apply the adjoint of `resize` to (N, T, *size); returns (N, T, *feature_size)."""
    for axis, n_in in enumerate(feature_size, start=2):
        if x.shape[axis] != n_in:
            u = resize_matrix(n_in, x.shape[axis], interpolation, align_corners, x)
            x = (x.movedim(axis, -1) @ u).movedim(-1, axis)
    return x


def margin(
    features: Tensor, pred: Tensor, mask: Tensor | None, *options: Any, **named: Any
) -> Tensor:
    """Return the margin (N, G, T, *size) in `compute_dtype`, NaN where it is undefined.

    Options are those of `defined_margin`, in its order or by name.
    """
    values, undefined, odd = defined_margin(features, pred, mask, *options, **named)
    axes = (1,) * (values.dim() - 3)
    return put_nan(
        values + odd.reshape(*odd.shape, *axes), undefined.reshape(*undefined.shape, *axes)
    )


def put_nan(x: Tensor, undefined: Tensor) -> Tensor:
    """x, but NaN where it is undefined: what comes back there turns into NaN, but 0 stays 0."""
    return torch.where(undefined, _nan_unless_zero(x, undefined) + torch.nan, x)


def sigmoid(margin: Tensor) -> Tensor:
    """Sigmoid that sends 0 back from NaN where 0 comes back, and NaN where anything else does."""
    undefined = margin.isnan()
    defined = margin.masked_fill(undefined, 0).sigmoid()
    return torch.where(undefined, _nan_unless_zero(margin, undefined), defined)


def _nan_unless_zero(x: Tensor, undefined: Tensor) -> Tensor:
    """0 x where undefined. What comes back there turns into infinity times 0, NaN, but 0 stays 0.

    Linear, so that it holds for derivatives of any order, and under every transform. (Infinity is
    two factors, because 0 times infinity were NaN, and the 0 no constant, which compilers fold.)
    """
    most = torch.finfo(x.dtype).max
    return x * ~undefined * most * most


def defined_margin(
    features: Tensor,
    pred: Tensor,
    mask: Tensor | None,
    groups: int,
    metric: str,
    temperature: float,
    interpolation: str,
    align_corners: bool,
    binarize: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the margin, finite also where it is undefined; where that is, (N, G, T) bool; and the
    sum (N, G, 1) of the features that are not finite, to be added before `put_nan`: what comes back
    must go to them, too.

    Values of pred and mask are not checked. Autocast changes nothing but the time it takes.

    margin = 2 f.(a - b) - (|a|² - |b|²) does not change when a constant is taken off a channel. Its
    mean is: sums over voxels, here and in the gradients, then have nothing large to cancel.
    """
    n, channels = features.shape[:2]
    targets, size = pred.shape[1], tuple(pred.shape[2:])
    dtype = _working_dtype(features)
    f = features.flatten(2).to(dtype)
    finite = f.isfinite()
    odd = f.masked_fill(finite, 0).unflatten(1, (groups, channels // groups)).flatten(2).sum(2)
    odd = odd[:, :, None].to(compute_dtype(features))
    f = f.masked_fill(~finite, 0)
    mean = f.detach().mean(dim=2, keepdim=True)
    f = f - mean
    # In double as the engine: comparison with a number casts it to the dtype of pred.
    p = pred.to(dtype) if binarize is None else (pred.double() > binarize).to(dtype)
    weights = torch.cat([p, 1 - p], dim=1)
    if mask is not None:
        weights = weights * mask.to(dtype)
    total = weights.flatten(2).sum(dim=2)
    empty = total == 0
    undefined = ~finite.unflatten(1, (groups, channels // groups)).flatten(2).all(2)[:, :, None]
    undefined = undefined | empty.unflatten(1, (2, targets)).any(1)[:, None]
    weights = adjoint(weights, tuple(features.shape[2:]), interpolation, align_corners).flatten(2)
    prototypes = weights @ f.transpose(1, 2) / total.masked_fill(empty, 1)[..., None]  # (N, 2 T, C)
    # (N, G, T, channels of the group)
    split = (n, 2, targets, groups, channels // groups)
    a, b = prototypes.reshape(split).permute(1, 0, 3, 2, 4)
    grouped = f.unflatten(1, (groups, channels // groups))
    if metric == "euclidean":
        low = 2 * ((a - b) @ grouped)
        threshold = a.square().sum(3, keepdim=True) - b.square().sum(3, keepdim=True)
        flat = (low - threshold).unflatten(3, tuple(features.shape[2:])).flatten(1, 2)
        values = resize(flat, size, interpolation, align_corners).unflatten(1, (groups, targets))
        return values.to(compute_dtype(features)), undefined, odd
    offset = mean.reshape(n, groups, 1, channels // groups)
    whole = (f + mean).unflatten(2, tuple(features.shape[2:]))
    v = resize(whole, size, interpolation, align_corners).flatten(2)
    v = v.unflatten(1, (groups, channels // groups))
    cosines = [_cosine(prototype + offset, v) for prototype in (a, b)]
    values = temperature * (cosines[0] - cosines[1]).unflatten(3, size)
    return values.to(compute_dtype(features)), undefined, odd


def _cosine(prototype: Tensor, v: Tensor) -> Tensor:
    """(N, G, T, c), (N, G, c, voxels) -> (N, G, T, voxels); 0 with a zero vector."""
    if v.shape[2] == 1:
        return prototype.sign() @ v.sign()
    return _unit(prototype, 3) @ _unit(v, 2)


def _unit(x: Tensor, dim: int) -> Tensor:
    square = x.square().sum(dim, keepdim=True)
    zero = square == 0  # also where the square root has no derivative
    return x / torch.where(zero, 1, square).sqrt()
