"""What people would use instead, and what reads the features once.

Every contender takes ``features`` (1, C, *feature_size) and returns SA scores, (C,) for units and
(1,) for a layer; ``pred`` and ``target`` are (1, 1, *size) torch tensors.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

import protoseg_fast as psf

MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def published_score(features: Tensor, pred: Tensor, target: Tensor) -> Tensor:
    """One map and its Dice by the authors' formulation in eager PyTorch."""
    size = pred.shape[2:]
    if features.shape[2:] != size:
        features = functional.interpolate(features, size, mode=MODES[len(size)])
    dims = tuple(range(2, features.dim()))
    rest = 1 - pred
    positive = (features * pred).sum(dims, keepdim=True) / pred.sum(dims, keepdim=True)
    negative = (features * rest).sum(dims, keepdim=True) / rest.sum(dims, keepdim=True)
    distance = [-torch.pow(features - p, 2).sum(1, keepdim=True) for p in (negative, positive)]
    foreground = torch.softmax(torch.cat(distance, dim=1), dim=1).argmax(1, keepdim=True) == 1
    return dice(foreground.flatten(1), target.flatten(1))


def dice(foreground: Tensor, target: Tensor) -> Tensor:
    """Dice (C,) of maps (C, voxels) and targets (1 or C, voxels)."""
    tp = (foreground & target).sum(1)
    return 2 * tp / (foreground.sum(1) + target.sum(1))


def published_loop(features: Tensor, pred: Tensor, target: Tensor) -> Tensor:
    """The research script: the authors' module, called once per unit."""
    units = features.split(1, dim=1)
    return torch.cat([published_score(unit, pred, target) for unit in units])


def published_batched(features: Tensor, pred: Tensor, target: Tensor) -> Tensor:
    """The same with the units of a layer as one batch."""
    units = features.transpose(0, 1)
    return published_score(units, pred, target)


def expert_units(features: Tensor, pred: Tensor, target: Tensor) -> Tensor:
    """The best PyTorch for units: one matmul for the sums, one comparison, counts."""
    size = pred.shape[2:]
    if features.shape[2:] != size:
        features = functional.interpolate(features, size, mode=MODES[len(size)])
    f, g = features[0].flatten(1), target.flatten()
    a, b = expert_prototypes(f, pred)
    # f > midpoint or f < midpoint, in one comparison: fold the side into the sign
    side = torch.sign(a - b)
    foreground = f * side > (a + b) / 2 * side
    tp = (foreground & g).sum(1)
    return 2 * tp / (foreground.sum(1) + g.sum())


def expert_layer(features: Tensor, pred: Tensor, target: Tensor) -> Tensor:
    """The best PyTorch for a layer: matmul for the sums, matmul for the projection."""
    small = features[0].flatten(1)
    if features.shape[2:] == pred.shape[2:]:
        a, b = expert_prototypes(small, pred)
    else:
        a, b = expert_prototypes(
            functional.interpolate(features, pred.shape[2:], mode=MODES[pred.dim() - 2])[0].flatten(
                1
            ),
            pred,
        )
    normal = a - b
    margin = 2 * (normal.T @ small) - (a.square() - b.square()).sum()
    if features.shape[2:] != pred.shape[2:]:
        margin = functional.interpolate(
            margin.reshape(1, 1, *features.shape[2:]),
            pred.shape[2:],
            mode=MODES[pred.dim() - 2],
        ).flatten(1)
    return dice(margin.reshape(1, -1) > 0, target.flatten(1))


def expert_prototypes(f: Tensor, pred: Tensor) -> tuple[Tensor, Tensor]:
    """Prototypes (C, 1) of features (C, voxels): one skinny matmul."""
    weights = torch.cat([pred.flatten(1), 1 - pred.flatten(1)])
    means = f @ weights.T / weights.sum(1)
    return means[:, :1], means[:, 1:]


def ours_units(features: Tensor, pred: Tensor, target: Tensor) -> Tensor:
    """protoseg_fast, one call, guide included."""
    return psf.sa_score(features, pred, target, groups="unit").flatten()


def ours_layer(features: Tensor, pred: Tensor, target: Tensor) -> Tensor:
    """protoseg_fast, one call, guide included."""
    return psf.sa_score(features, pred, target).flatten()


Contender = Callable[[Tensor, Tensor, Tensor], Tensor]

UNITS: dict[str, Contender] = {
    "published, unit by unit": published_loop,
    "published, units as batch": published_batched,
    "expert PyTorch": expert_units,
    "protoseg_fast": ours_units,
}
LAYER: dict[str, Contender] = {
    "published": published_score,
    "expert PyTorch": expert_layer,
    "protoseg_fast": ours_layer,
}
