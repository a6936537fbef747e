"""The published formulation, for comparison: the same scores the way the paper's code takes them.

As in the module the authors published (He et al., Medical Image Analysis 2023), written here in
our own words: features resized to the image first, then some dozen passes over them, one unit and
one target at a time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

import protoseg_fast as psf
from protoseg_fast.demo.data import Slices
from protoseg_fast.demo.score import BATCH, Layer, predict, visit_layers
from protoseg_fast.demo.unet import UNet

UNITS_PER_LAYER = 2
REPEATS = 3


def published_map(features: Tensor, pred: Tensor, mask: Tensor) -> Tensor:
    """The map (N, H, W) bool of features (N, C, H, W) guided by pred (N, 1, H, W)."""
    rest = 1 - pred
    positive = (features * pred * mask).sum((2, 3), keepdim=True) / (pred * mask).sum(
        (2, 3), keepdim=True
    )
    negative = (features * rest * mask).sum((2, 3), keepdim=True) / (rest * mask).sum(
        (2, 3), keepdim=True
    )
    similarity = [-(features - p).pow(2).sum(1, keepdim=True) for p in (negative, positive)]
    return torch.cat(similarity, dim=1).softmax(dim=1).argmax(dim=1) == 1


def published_sa(features: Tensor, pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """SA score (N,) of features (N, C, h, w) of any size; pred, target, mask (N, 1, H, W)."""
    if features.shape[2:] != pred.shape[2:]:
        features = F.interpolate(
            features, size=pred.shape[2:], mode="bilinear", align_corners=False
        )
    inside = mask[:, 0] > 0
    segmented = published_map(features, pred, mask) & inside
    truth = (target[:, 0] > 0) & inside
    tp = (segmented & truth).sum((1, 2)).double()
    return 2 * tp / (segmented.sum((1, 2)) + truth.sum((1, 2)))


@dataclass(frozen=True)
class PublishedTiming:
    """What the published formulation took on a few units, and what it would take on all.

    Attributes:
        units_timed: units it was timed on.
        extrapolated_s: seconds for every unit, target and image of the sweep; an estimate.
        difference: largest difference of its SA scores from those of ``protoseg_fast``. Taken in
            double precision: in single, its softmax rounds the margins of almost silent units to
            ties.
    """

    units_timed: int
    extrapolated_s: float
    difference: float


def time_published(
    model: UNet,
    slices: Slices,
    layers: Sequence[Layer],
    images: int,
    device: torch.device,
) -> PublishedTiming:
    """Time the published formulation on the first units of every layer, for one batch.

    Args:
        model: the network.
        slices: slices to score; the first BATCH are used.
        layers: what the whole sweep scored.
        images: how many images the whole sweep scored.
        device: where the network runs.
    """
    part = slices[:BATCH]
    pred = predict(model, part.image, device)
    mask = part.mask.float()
    guide = psf.Guide(pred, part.target, part.mask)
    seconds: dict[str, float] = {}
    differences: list[float] = []

    def visit(name: str, features: Tensor) -> None:
        few = features[:, :UNITS_PER_LAYER]
        engine = guide.sa_score(few, groups="unit")
        timed = []
        for unit in range(few.shape[1]):
            for t in range(pred.shape[1]):
                call = (
                    few[:, unit : unit + 1].contiguous(),
                    pred[:, t : t + 1].contiguous(),
                    part.target[:, t : t + 1],
                    mask,
                )
                timed.append(_median_time(*call))
                exact = published_sa(*(tensor.double() for tensor in call))
                differences.append(_largest_difference(exact, engine[:, unit, t]))
        seconds[name] = statistics.fmean(timed) * pred.shape[1]  # one unit, all targets

    visit_layers(model, part.image, pred, device, visit)
    per_batch = sum(seconds[layer.name] * layer.units for layer in layers)
    return PublishedTiming(
        units_timed=sum(min(UNITS_PER_LAYER, layer.units) for layer in layers),
        extrapolated_s=per_batch * images / len(part),
        difference=max(differences),
    )


def _median_time(features: Tensor, pred: Tensor, target: Tensor, mask: Tensor) -> float:
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        published_sa(features, pred, target, mask)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _largest_difference(ours: Tensor, theirs: Tensor) -> float:
    """Of two sets of scores; undefined scores agree with each other only."""
    return float((ours.nan_to_num(-1) - theirs.nan_to_num(-1)).abs().max())
