"""The windows of a sliding-window inference, and which of them each voxel belongs to."""

from __future__ import annotations

import itertools
import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from protoseg_fast.guide import is_whole

__all__ = ["Grid", "Slices", "SlidingWindow", "Window"]

Slices = tuple[slice, ...]


@dataclass(frozen=True)
class SlidingWindow:
    """The geometry of a sliding-window inference, as MONAI's ``SlidingWindowInferer`` has it.

    Attributes:
        roi_size: extents of the window; an int for all axes, -1 for the image's own.
        overlap: share of the window that neighbours share, one for all axes or one for each.
        mode: how predictions are blended: "constant" or "gaussian".
        batch_size: how many windows the network takes at once.
        sigma_scale: the Gaussian's standard deviation, as a share of the window.
        padding_mode, cval: how images smaller than the window are padded; padding never counts.
    """

    roi_size: int | Sequence[int]
    overlap: float | Sequence[float] = 0.25
    mode: str = "constant"
    batch_size: int = 1
    sigma_scale: float | Sequence[float] = 0.125
    padding_mode: str = "constant"
    cval: float = 0.0

    @classmethod
    def of(cls, window: Any) -> SlidingWindow:
        """Return the geometry of a size, a `SlidingWindow` or a MONAI ``SlidingWindowInferer``.

        Raises:
            TypeError: for anything else.
        """
        if isinstance(window, cls):
            return window
        if isinstance(window, list | tuple) or is_whole(window):
            return cls(window)
        if all(hasattr(window, name) for name in ("roi_size", "overlap", "sw_batch_size")):
            return cls(
                window.roi_size,
                window.overlap,
                str(getattr(window.mode, "value", window.mode)),
                window.sw_batch_size,
                window.sigma_scale,
                str(getattr(window.padding_mode, "value", window.padding_mode)),
                window.cval,
            )
        raise TypeError(
            "window must be a size, a protoseg_fast.SlidingWindow or a MONAI "
            f"SlidingWindowInferer, got {type(window).__name__}."
        )

    def grid(self, size: Sequence[int]) -> Grid:
        """Lay the windows over an image of that size.

        Raises:
            ValueError: for another number of axes, or values out of range.
            TypeError: for extents or a batch_size that are no whole numbers.
        """
        rank = len(size)
        wanted_roi = _each("roi_size", self.roi_size, rank)
        if not all(wanted is None or is_whole(wanted) for wanted in wanted_roi):
            raise TypeError(f"roi_size must be whole numbers, got {self.roi_size!r}.")
        if not is_whole(self.batch_size):
            raise TypeError(f"batch_size must be a whole number, got {self.batch_size!r}.")
        roi = [
            extent if wanted is None or wanted <= 0 else int(wanted)
            for extent, wanted in zip(size, wanted_roi, strict=True)
        ]
        overlap = _each("overlap", self.overlap, rank)
        if not all(0 <= share < 1 for share in overlap):
            raise ValueError(f"overlap must be at least 0 and less than 1, got {self.overlap}.")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be positive, got {self.batch_size}.")
        padded = [max(extent, window) for extent, window in zip(size, roi, strict=True)]
        before = [(p - extent) // 2 for p, extent in zip(padded, size, strict=True)]
        starts = [_starts(p, w, share) for p, w, share in zip(padded, roi, overlap, strict=True)]
        owned = [
            _owned(s, w, first, first + extent)
            for s, w, first, extent in zip(starts, roi, before, size, strict=True)
        ]
        windows = []
        for index in itertools.product(*(range(len(s)) for s in starts)):
            corner = [starts[axis][i] for axis, i in enumerate(index)]
            own = [owned[axis][i] for axis, i in enumerate(index)]
            windows.append(
                Window(
                    tuple(slice(c, c + w) for c, w in zip(corner, roi, strict=True)),
                    tuple(slice(a - c, b - c) for (a, b), c in zip(own, corner, strict=True)),
                )
            )
        return Grid(tuple(size), tuple(padded), tuple(before), tuple(roi), windows, self)

    def importance(self, roi: Sequence[int]) -> Tensor:
        """Return the weight (*roi) of each voxel of a window when predictions are blended."""
        if self.mode == "constant":
            return torch.ones(tuple(roi))
        if self.mode != "gaussian":
            raise ValueError(f'mode must be "constant" or "gaussian", got {self.mode!r}.')
        weight = torch.ones(())
        for extent, scale in zip(
            roi, _each("sigma_scale", self.sigma_scale, len(roi)), strict=True
        ):
            x = torch.arange(extent, dtype=torch.float32) - (extent - 1) / 2
            weight = weight.unsqueeze(-1) * torch.exp(-(x**2) / (2 * (scale * extent) ** 2))
        return weight.clamp(min=max(float(weight.min()), 1e-3))


@dataclass(frozen=True)
class Window:
    """One window.

    Attributes:
        place: its slices in the padded image.
        own: slices, within the window, of the voxels that belong to it.
    """

    place: Slices
    own: Slices


@dataclass(frozen=True)
class Grid:
    """Windows over an image; every voxel of the image belongs to exactly one of them.

    That is the one in which the voxel's importance is largest: whose centre is nearest, the
    earlier one where two are as near. Constant importance is a tie everywhere, broken likewise.

    Attributes:
        size, padded: extents of the image, and of the image as padded to the window.
        before: padding in front of each axis.
        roi: extents of the windows.
        windows: in MONAI's order.
        geometry: what the grid was made from.
    """

    size: tuple[int, ...]
    padded: tuple[int, ...]
    before: tuple[int, ...]
    roi: tuple[int, ...]
    windows: list[Window]
    geometry: SlidingWindow

    @property
    def inside(self) -> Slices:
        """The image's slices in the padded image."""
        return tuple(slice(b, b + n) for b, n in zip(self.before, self.size, strict=True))

    def pad(self, x: Tensor, *, image: bool = False) -> Tensor:
        """Pad (N, C, *size) to the windows: an image as the inference does, others by zeros."""
        if self.padded == self.size:
            return x
        after = [p - b - n for p, b, n in zip(self.padded, self.before, self.size, strict=True)]
        widths = [w for pair in zip(self.before[::-1], after[::-1], strict=True) for w in pair]
        if not image:
            return functional.pad(x, widths)
        mode = self.geometry.padding_mode
        if mode == "constant":
            return functional.pad(x, widths, value=self.geometry.cval)
        return functional.pad(x, widths, mode=mode)


def _each(name: str, value: Any, rank: int) -> Sequence[Any]:
    values = [value] * rank if isinstance(value, numbers.Real) else list(value)
    if len(values) != rank:
        raise ValueError(f"{name} must be a number or {rank} of them, got {value!r}.")
    return values


def _starts(extent: int, window: int, overlap: float) -> list[int]:
    """Where windows start along an axis: steps of what they do not share, the last one moved in."""
    step = window if window == extent else max(int(window * (1 - overlap)), 1)
    count = 1 + math.ceil(max(extent - window, 0) / step)
    return [min(i * step, extent - window) for i in range(count)]


def _owned(starts: list[int], window: int, first: int, stop: int) -> list[tuple[int, int]]:
    """The voxels [a, b) of [first, stop) along an axis that belong to each window."""
    middles = [(a + b + window - 1) // 2 + 1 for a, b in itertools.pairwise(starts)]
    edges = [first, *(min(max(m, first), stop) for m in middles), stop]
    return list(itertools.pairwise(edges))
