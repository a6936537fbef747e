"""Train a small 3-D U-Net on a data set in the Decathlon layout, to sweep it afterwards.

Made for small volumes such as Task04_Hippocampus. Trains on random crops of every other case, in
the order of names; the script prints the Dice of the others.

    pip install ".[sweep]"
    python examples/train_hippocampus.py DIR --minutes 4 --out unet.pt
    protoseg-fast sweep --model examples/train_hippocampus.py:build --weights unet.pt --data DIR \\
        --activation softmax --normalize zscore --out hippocampus
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from protoseg_fast.cohort.config import SweepConfig
from protoseg_fast.cohort.layouts import Case, find_cases
from protoseg_fast.cohort.volumes import read_case

CHANNELS = (8, 16, 32)
CLASSES = 3
CROP = (24, 32, 24)


class Block(nn.Module):
    """Two convolutions."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (before, after):
            layers += [
                nn.Conv3d(channels, after, 3, padding=1, bias=False),
                nn.InstanceNorm3d(after, affine=True),
                nn.LeakyReLU(0.01),
            ]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(1, before, *size) to (1, after, *size)."""
        return self.layers(x)


class UNet(nn.Module):
    """A U-Net for volumes of any size: it upsamples to the size of the skip connection."""

    def __init__(self) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(CHANNELS))
        self.encoder = nn.ModuleList(
            [Block(1, CHANNELS[0]), *(Block(before, after) for before, after in pairs)]
        )
        self.decoder = nn.ModuleList(Block(a + b, a) for a, b in reversed(pairs))
        self.head = nn.Conv3d(CHANNELS[0], CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(1, 1, *size) to logits (1, CLASSES, *size)."""
        skips: list[Tensor] = []
        for block in self.encoder:
            x = block(functional.max_pool3d(x, 2, ceil_mode=True) if skips else x)
            skips.append(x)
        for block, skip in zip(self.decoder, reversed(skips[:-1]), strict=True):
            x = functional.interpolate(x, size=skip.shape[2:], mode="trilinear")
            x = block(torch.cat([skip, x], dim=1))
        return self.head(x)


def build() -> nn.Module:
    """Return the untrained network, for ``--model``."""
    return UNet()


def read(case: Case) -> tuple[Tensor, Tensor]:
    """Read image (1, 1, *size) and label (1, *size), as the sweep will."""
    volume = read_case(case, SweepConfig(normalize="zscore"))
    assert volume.label is not None
    return torch.from_numpy(volume.image)[None], torch.from_numpy(volume.label)[None]


def loss(logits: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy plus one minus the mean soft Dice of the foreground classes."""
    truth = functional.one_hot(label, CLASSES).movedim(-1, 1)
    pred = logits.softmax(1)
    overlap = (pred * truth).flatten(2).sum(2)
    dice = (2 * overlap + 1) / (pred.flatten(2).sum(2) + truth.flatten(2).sum(2) + 1)
    return functional.cross_entropy(logits, label) + 1 - dice[:, 1:].mean()


def crop(image: Tensor, label: Tensor, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Cut a random crop out, change contrast and brightness, add noise."""
    starts = [
        generator.integers(max(n - c, 0) + 1) for n, c in zip(label.shape[1:], CROP, strict=True)
    ]
    box = (..., *(slice(start, start + c) for start, c in zip(starts, CROP, strict=True)))
    image, label = image[box], label[box]
    image = image * generator.uniform(0.8, 1.2) + generator.uniform(-0.2, 0.2)
    return image + 0.1 * generator.uniform() * torch.randn(image.shape), label


def train(cases: list[Case], minutes: float, seed: int) -> nn.Module:
    """Train for so many minutes."""
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    data = [read(case) for case in cases]
    model = build().train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    start, step = time.monotonic(), 0
    while (share := (time.monotonic() - start) / (60 * minutes)) < 1:
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * (1 - share) ** 0.9
        image, label = crop(*data[generator.integers(len(data))], generator)
        value = loss(model(image), label)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        step += 1
        if step % 50 == 0:
            print(f"step {step}, {share:.0%} of the time, loss {float(value.detach()):.3f}")
    return model.eval()


def dice(model: nn.Module, cases: list[Case]) -> list[float]:
    """Return the Dice of the foreground classes of all cases, their mean for each class."""
    found = []
    for case in cases:
        image, label = read(case)
        with torch.no_grad():
            output = model(image).argmax(1)
        pairs = [(output == c, label == c) for c in range(1, CLASSES)]
        found.append([float(2 * (o & t).sum() / (o.sum() + t.sum())) for o, t in pairs])
    return [float(value) for value in np.nanmean(found, axis=0)]


def main() -> None:
    """Train, save the weights, print the Dice of the cases held out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with dataset.json")
    parser.add_argument("--out", type=Path, default=Path("unet.pt"), help="weights to write")
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    cases = find_cases(arguments.data, "msd")
    model = train(cases[::2], arguments.minutes, arguments.seed)
    torch.save(model.state_dict(), arguments.out)
    print("Dice of the cases held out:", *(f"{d:.3f}" for d in dice(model, cases[1::2])))


if __name__ == "__main__":
    main()
