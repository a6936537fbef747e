"""Degradations of an image that a scanner could have caused.

The held-out slices of one clean scan are all segmented about equally well, and an estimate of
quality cannot be judged without a spread of quality. So each slice is also scored noisy,
unevenly lit and blurred, at three severities each. Training sees mild noise and shading, as usual
(:mod:`protoseg_fast.demo.train`), but never this much, and never blur.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


def noise(image: Tensor, sigma: float | Tensor, generator: torch.Generator) -> Tensor:
    """Rician noise, that of a magnitude MR image.

    ``sigma`` is in units of the T1 maximum: a number, or one per image, (N, 1, 1, 1).
    """
    real = image + sigma * torch.randn(image.shape, generator=generator)
    imaginary = sigma * torch.randn(image.shape, generator=generator)
    return torch.hypot(real, imaginary)


def bias(image: Tensor, amplitude: float | Tensor, generator: torch.Generator) -> Tensor:
    """A smooth receive-coil field: intensity scaled by 1 ± amplitude across the slice.

    The field is one ramp per slice in a random direction. ``amplitude`` is a number, or one per
    image, (N, 1, 1, 1).
    """
    height, width = image.shape[2:]
    angle = 2 * math.pi * torch.rand((len(image), 1, 1, 1), generator=generator)
    y = torch.linspace(-1, 1, height).view(1, 1, -1, 1)
    x = torch.linspace(-1, 1, width).view(1, 1, 1, -1)
    return image * (1 + amplitude * torch.sin(math.pi / 2 * (x * angle.cos() + y * angle.sin())))


def blur(image: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Gaussian blur within the slice; sigma is in voxels (= mm). Uses no random numbers."""
    radius = math.ceil(3 * sigma)
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    taps = (taps / taps.sum()).to(image.dtype)
    down = F.conv2d(image, taps.view(1, 1, -1, 1), padding=(radius, 0))
    return F.conv2d(down, taps.view(1, 1, 1, -1), padding=(0, radius))


@dataclass(frozen=True)
class Degradation:
    """One way to spoil an image. ``kind`` is shared by its severities; ``label`` is for readers."""

    name: str
    kind: str
    label: str
    severity: float
    apply: Callable[[Tensor, float, torch.Generator], Tensor] | None

    def __call__(self, image: Tensor, mask: Tensor, seed: int) -> Tensor:
        """The degraded image (S, 1, H, W), 0 outside the mask: skull-stripped like the scan."""
        if self.apply is None:
            return image
        generator = torch.Generator().manual_seed(seed)
        return self.apply(image, self.severity, generator) * mask


CLEAN = Degradation("clean", "clean", "as it is", 0.0, None)

DEGRADATIONS = (
    CLEAN,
    *(Degradation(f"noise-{s}", "noise", f"noise, {s:.0%}", s, noise) for s in (0.05, 0.1, 0.15)),
    *(Degradation(f"bias-{a}", "bias", f"shading, ±{a:.0%}", a, bias) for a in (0.15, 0.3, 0.45)),
    *(Degradation(f"blur-{s}", "blur", f"blur, {s} mm", s, blur) for s in (1, 2, 3)),
)
