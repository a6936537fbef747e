"""A small 2-D U-Net whose convolution blocks have names."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (16, 32, 64, 128)


class ConvBlock(nn.Sequential):
    """3 x 3 convolution, batch normalisation, ReLU: (N, C_in, H, W) -> (N, C_out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class UNet(nn.Module):
    """Encoder and decoder with skip connections, two convolution blocks per level.

    Args:
        targets: number of targets T; each is an independent binary problem.
        widths: channels per level, from the image's own resolution down.

    ``blocks`` holds the convolution blocks in the order they run: ``enc1a``, ``enc1b``, ...,
    ``dec1b``. The digit is the level (1 = the image's resolution), the letter the position.
    """

    def __init__(self, targets: int, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.levels = len(widths)
        self.blocks = nn.ModuleDict()
        channels = 1
        for level, width in enumerate(widths, start=1):
            self._add("enc", level, channels, width)
            channels = width
        for level in range(self.levels - 1, 0, -1):
            width = widths[level - 1]
            self._add("dec", level, channels + width, width)
            channels = width
        self.head = nn.Conv2d(channels, targets, 1)

    def _add(self, side: str, level: int, in_channels: int, out_channels: int) -> None:
        self.blocks[f"{side}{level}a"] = ConvBlock(in_channels, out_channels)
        self.blocks[f"{side}{level}b"] = ConvBlock(out_channels, out_channels)

    def _run(self, side: str, level: int, x: Tensor) -> Tensor:
        out: Tensor = self.blocks[f"{side}{level}b"](self.blocks[f"{side}{level}a"](x))
        return out

    def forward(self, image: Tensor) -> Tensor:
        """Logits (N, T, H, W) of an image (N, 1, H, W); H and W divide by 2^(levels - 1)."""
        x = self._run("enc", 1, image)
        skips = []
        for level in range(2, self.levels + 1):
            skips.append(x)
            x = self._run("enc", level, F.max_pool2d(x, 2))
        for level in range(self.levels - 1, 0, -1):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = self._run("dec", level, torch.cat([x, skips.pop()], dim=1))
        logits: Tensor = self.head(x)
        return logits
