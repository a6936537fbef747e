"""The authors' module as their paper and published code state it, in our own words.

One map per call: two masked means, squared distances to both, a two-way softmax, its argmax. Units
are scored one by one, as a research script does, or as the batch of one call.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional
from workloads import MODES

Module = Callable[[Tensor, Tensor], Tensor]


def similarity(features: Tensor, pred: Tensor, mask: Tensor | None = None) -> Tensor:
    """Probabilities (N, 2, *size) of background and target; features (N, C, *size)."""
    if mask is None:
        mask = torch.ones_like(pred)
    axes = tuple(range(2, features.dim()))

    def prototype(weight: Tensor) -> Tensor:
        weight = weight * mask
        return (features * weight).sum(axes, keepdim=True) / weight.sum(axes, keepdim=True)

    distances = [
        -(features - prototype(weight)).square().sum(1, keepdim=True) for weight in (1 - pred, pred)
    ]
    return torch.softmax(torch.cat(distances, dim=1), dim=1)


def resize(features: Tensor, size: tuple[int, ...]) -> Tensor:
    """Features at the size of the image, which the module needs; 16-bit ones in float32."""
    if features.dtype.itemsize == 2:
        features = features.float()
    if tuple(features.shape[2:]) == tuple(size):
        return features
    return functional.interpolate(features, size, mode=MODES[len(size)])


def dice(foreground: Tensor, target: Tensor) -> Tensor:
    """Dice (N,) of maps and targets (N or 1, *size), counted in int32, which is torch's fastest."""
    foreground, target = foreground.flatten(1), target.flatten(1)
    tp = (foreground & target).sum(1, dtype=torch.int32)
    return 2 * tp / (foreground.sum(1, dtype=torch.int32) + target.sum(1, dtype=torch.int32))


def score_one_by_one(
    module: Module, features: Tensor, pred: Tensor, target: Tensor, group_channels: int
) -> Tensor:
    """Scores (N, G, T): one call of the module per group and target."""
    groups = []
    for group in features.split(group_channels, dim=1):
        resized = resize(group, pred.shape[2:])
        groups.append(_targets(module, resized, pred, target))
    return torch.stack(groups, dim=1)


def score_batched(
    module: Module, features: Tensor, pred: Tensor, target: Tensor, group_channels: int
) -> Tensor:
    """Scores (N, G, T): the groups of all images are the batch of one call per target."""
    images = len(features)
    batch = features.reshape(-1, group_channels, *features.shape[2:])
    if images > 1:  # the guide of one image broadcasts
        groups = len(batch) // images
        pred, target = (x.repeat_interleave(groups, dim=0) for x in (pred, target))
    scores = _targets(module, resize(batch, pred.shape[2:]), pred, target)
    return scores.reshape(images, -1, scores.shape[-1])


def _targets(module: Module, features: Tensor, pred: Tensor, target: Tensor) -> Tensor:
    """Scores (N, T) of features at the size of the guide."""
    return torch.stack(
        [
            dice(module(features, pred[:, t : t + 1]).argmax(1) == 1, target[:, t])
            for t in range(pred.shape[1])
        ],
        dim=1,
    )
