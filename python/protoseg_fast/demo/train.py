"""Training on the spot: a fixed number of seeded steps, about half a minute on two cores."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from protoseg_fast.demo.data import TARGETS, Slices
from protoseg_fast.demo.degrade import bias, noise
from protoseg_fast.demo.unet import UNet

BATCH = 8
CROP = 96
PEAK_LEARNING_RATE = 5e-3

# Augmentation, each drawn per crop: overall gain and shading of up to ± these, noise of up to this
# standard deviation (of the T1 maximum). Without it the network is all but a threshold on
# intensity, which no scanner keeps constant.
GAIN, SHADING, NOISE = 0.2, 0.2, 0.05


def train(
    slices: Slices,
    *,
    steps: int,
    seed: int,
    device: torch.device,
    on_step: Callable[[float], None],
) -> tuple[UNet, list[float]]:
    """Train a U-Net on random crops of ``slices``.

    Args:
        slices: training slices.
        steps: optimiser steps of BATCH crops each.
        seed: seeds weights and crops; the caller's random state is left as it was.
        device: where to train.
        on_step: called with the loss after each step.

    Returns:
        The network in evaluation mode, and the loss of each step.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = UNet(len(TARGETS))
    # Channels-last convolutions are about a quarter faster on CPUs; scoring reads them in place.
    model = model.to(device)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in stub
    optimiser = torch.optim.AdamW(model.parameters(), lr=PEAK_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_LEARNING_RATE, total_steps=steps)
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(steps):
        image, target, mask = (part.to(device) for part in random_crops(slices, generator))
        image = image.contiguous(memory_format=torch.channels_last)
        loss = segmentation_loss(model(image), target, mask)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        on_step(losses[-1])
    return model.eval(), losses


def random_crops(slices: Slices, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """BATCH augmented square crops, float32.

    Returns:
        image (N, 1, h, w), target (N, T, h, w) and mask (N, 1, h, w).
    """

    def draw(upper: int) -> list[int]:
        return torch.randint(upper, (BATCH,), generator=generator).tolist()

    height, width = slices.image.shape[2:]
    crops = [
        (part, slice(top, top + CROP), slice(left, left + CROP))
        for part, top, left in zip(
            draw(len(slices)), draw(height - CROP + 1), draw(width - CROP + 1), strict=True
        )
    ]
    image, target, mask = (
        torch.stack([source[part, :, rows, columns] for part, rows, columns in crops]).float()
        for source in (slices.image, slices.target, slices.mask)
    )
    return augment(image, mask, generator), target, mask


def augment(image: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
    """Image (N, 1, h, w) with a random gain, shading and noise per crop; 0 outside the mask."""

    def draw() -> Tensor:
        return torch.rand((len(image), 1, 1, 1), generator=generator)

    lit = bias(image * (1 + GAIN * (2 * draw() - 1)), SHADING * draw(), generator)
    return noise(lit, NOISE * draw(), generator) * mask


def segmentation_loss(logits: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy plus soft Dice loss over the voxels of the mask, averaged over targets."""
    voxel_loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none") * mask
    cross_entropy = voxel_loss.sum() / (mask.sum() * target.shape[1]).clamp(min=1)
    pred = logits.sigmoid() * mask
    overlap = (pred * target).sum(dim=(0, 2, 3))
    # +1 keeps a crop set without the target finite.
    soft_dice = (2 * overlap + 1) / (pred.sum(dim=(0, 2, 3)) + target.sum(dim=(0, 2, 3)) + 1)
    return cross_entropy + (1 - soft_dice).mean()
