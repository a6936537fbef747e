"""What is timed: problems of the headline table, points of the scaling curves, and their inputs.

Everything is made from a seed; a workload is small, immutable and goes into the JSON as it is.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

#: Same-size features rotate over copies that add up to this, so that none are found in cache.
ROTATED_BYTES = 400e6

#: Interpolation mode by number of spatial axes.
MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}

#: Kinds of made-up features; `network.ACTIVATIONS` adds those of a trained network.
NOISY, SMOOTH, SPARSE = "noisy", "smooth", "sparse"


class Inputs(NamedTuple):
    """features (N, C, *feature_size), pred (N, T, *size) float32, target (N, T, *size) bool."""

    features: Tensor
    pred: Tensor
    target: Tensor


@dataclass(frozen=True)
class Workload:
    """Features of one layer scored at one size.

    Attributes:
        name: what tables and ``--only`` call it.
        channels: C.
        feature_size: spatial extents of the features.
        size: spatial extents of pred and target.
        groups: "unit", "layer" or a number of groups.
        images: N.
        targets: T.
        dtype: of the features, a name in torch.
        data: kind of features: noisy, smooth, sparse, or a layer of the trained network.
        threads: None for the run's.
        curve: the scaling curve it is a point of; "" for the headline table.
        x: where on that curve.
    """

    name: str
    channels: int
    feature_size: tuple[int, ...]
    size: tuple[int, ...]
    groups: int | str = "unit"
    images: int = 1
    targets: int = 1
    dtype: str = "float32"
    data: str = NOISY
    threads: int | None = None
    curve: str = ""
    x: float | str = 0

    @property
    def group_count(self) -> int:
        """G."""
        if self.groups == "unit":
            return self.channels
        return 1 if self.groups == "layer" else int(self.groups)

    @property
    def group_channels(self) -> int:
        """Channels per group."""
        return self.channels // self.group_count

    @property
    def resized(self) -> bool:
        """Whether features are of another size than the target."""
        return self.feature_size != self.size

    @property
    def feature_bytes(self) -> int:
        """Bytes of the features."""
        itemsize = getattr(torch, self.dtype).itemsize
        return self.images * self.channels * math.prod(self.feature_size) * itemsize

    @property
    def limit_bytes(self) -> int:
        """Bytes that must be read at least: the features; if resized, the guide counts too."""
        guide = 5 * self.images * self.targets * math.prod(self.size)  # float32 and bool
        return self.feature_bytes + (guide if self.resized else 0)

    @property
    def operations(self) -> int:
        """Nominal arithmetic, the same for every contender: it places points on the roofline.

        Five per feature and target for the two weighted sums; two more for a projection; three
        per voxel of a map for its comparison and two counts, and three for resizing it.
        """
        per_target = self.images * self.targets
        features = self.channels * math.prod(self.feature_size)
        maps = self.group_count * math.prod(self.size)
        projection = 2 if self.group_channels > 1 else 0
        return per_target * (features * (5 + projection) + maps * (6 if self.resized else 3))

    def copies(self) -> int:
        """How many copies of the features a contender rotates over."""
        if self.resized:
            return 1
        return max(2, math.ceil(min(ROTATED_BYTES, 25 * self.feature_bytes) / self.feature_bytes))

    def tiny(self) -> Workload:
        """The same kind of problem in a fraction of a second, for tests; its figures mean nothing.

        Whole numbers stay whole: the resize factor and the groups keep their kind.
        """
        shrink = min(1.0, 24 / max(self.size)) if len(self.size) < 3 else 12 / max(self.size)
        smaller = {
            "size": tuple(max(4, round(n * shrink)) for n in self.size),
            "feature_size": tuple(max(2, round(n * shrink)) for n in self.feature_size),
        }
        if self.data not in (NOISY, SMOOTH, SPARSE):
            smaller = {}
        channels = self.channels if isinstance(self.groups, int) or not smaller else 6
        return dataclasses.replace(self, channels=channels, **smaller)


HEADLINE = [
    Workload("units 64 x 256²", 64, (256, 256), (256, 256)),
    Workload("layer 64 x 256²", 64, (256, 256), (256, 256), "layer"),
    Workload("units 256 x 64² -> 256²", 256, (64, 64), (256, 256)),
    Workload("layer 256 x 64² -> 256²", 256, (64, 64), (256, 256), "layer"),
    Workload("units 128 x 16³ -> 128³", 128, (16, 16, 16), (128, 128, 128)),
    Workload("units 96 x 37² -> 200²", 96, (37, 37), (200, 200)),
]

#: Curves whose peak memory is measured too, and that have a plot of their own.
CHANNELS, SIZE, RESIZE = "channels", "size", "resize factor"


def _square(n: int) -> tuple[int, int]:
    return (n, n)


BASE = Workload("", 64, _square(256), _square(256))


def _vary(base: Workload, field: str, values: Sequence[float | str]) -> list[Workload]:
    return [dataclasses.replace(base, x=value, **{field: value}) for value in values]


def _points(curve: str) -> list[Workload]:
    """The points of one curve, without their names."""
    if curve == SIZE:
        return [
            dataclasses.replace(BASE, channels=32, x=n, size=_square(n), feature_size=_square(n))
            for n in (32, 128, 256, 512, 1024)
        ]
    if curve == RESIZE:
        return [
            dataclasses.replace(BASE, x=round(256 / n, 2), feature_size=_square(n))
            for n in (256, 128, 64, 37, 32, 16)
        ]
    if curve == "images":
        base = dataclasses.replace(BASE, channels=32, size=_square(128), feature_size=_square(128))
        return _vary(base, curve, [1, 2, 4, 8])
    if curve == "threads":
        count = os.cpu_count() or 1
        return _vary(BASE, curve, sorted({n for n in (1, 2, 4, 8, 16, count) if n <= count}))
    if curve == "data":
        base = dataclasses.replace(BASE, feature_size=_square(64))
        return _vary(base, curve, [NOISY, SMOOTH, SPARSE])
    values: dict[str, list[float | str]] = {
        CHANNELS: [8, 32, 128, 512],
        "targets": [1, 2, 4, 8],
        "groups": [1, 4, 16, 64],
        "dtype": ["float16", "bfloat16", "float32", "float64"],
    }
    return _vary(BASE, curve, values[curve])


CURVES = (
    CHANNELS,
    SIZE,
    RESIZE,
    "images",
    "targets",
    "groups",
    "threads",
    "dtype",
    "data",
)


def curve_points(curve: str, quick: bool = False) -> list[Workload]:
    """A scaling curve: one thing varies; ``quick`` takes every other number on it."""
    points = _points(curve)
    if quick and len(points) > 2 and not isinstance(points[0].x, str):
        points = points[::2]
    return [
        dataclasses.replace(point, name=f"curve {curve}: {point.x}", curve=curve)
        for point in points
    ]


def make_inputs(workload: Workload, device: str = "cpu", seed: int = 0) -> Inputs:
    """Features that know the target to varying degrees, and a guide that is mostly right."""
    generator = torch.Generator().manual_seed(seed)
    n, t, size = workload.images, workload.targets, workload.size
    spatial = len(size)
    grids = torch.meshgrid(*(torch.linspace(-1, 1, extent) for extent in size), indexing="ij")
    distance = torch.stack([grid.square() for grid in grids]).sum(0).sqrt()
    radius = torch.linspace(0.45, 0.75, n * t).reshape(n, t, *(1,) * spatial)
    noise = torch.randn(n, t, *size, generator=generator)
    target = distance + 0.05 * noise < radius
    pred = torch.sigmoid(12 * (radius - distance) + 0.5 * noise)
    features = _features(workload, target[:, :1].float(), generator)
    return Inputs(*(x.to(device) for x in (features, pred, target)))


def _features(workload: Workload, target: Tensor, generator: torch.Generator) -> Tensor:
    shape = (workload.images, workload.channels, *workload.feature_size)
    if workload.data == SMOOTH:
        coarse = [max(2, extent // 8) for extent in workload.feature_size]
        noise = torch.randn(*shape[:2], *coarse, generator=generator)
        mode = MODES[len(coarse)]
        noise = functional.interpolate(noise, workload.feature_size, mode=mode)
    else:
        noise = torch.randn(shape, generator=generator)
    strength = torch.linspace(-1.5, 1.5, workload.channels)
    signal = functional.interpolate(target, workload.feature_size, mode="area")
    features = noise + strength.reshape(1, -1, *(1,) * len(workload.feature_size)) * signal
    if workload.data == SPARSE:
        features = (features - 0.5).relu()
    return features.to(getattr(torch, workload.dtype))
