"""The scan the demo works on: the MNI ICBM152 average brain that nilearn carries.

Nothing is downloaded and nothing is resampled: the T1 volume and its grey- and white-matter
probability maps are read at their own resolution of 1 mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from nilearn import datasets
from numpy.typing import NDArray
from torch import Tensor

from protoseg_fast.demo.config import DemoError

#: The targets, in the order of every T axis.
TARGETS = ("grey matter", "white matter")

# The brain with a margin, in voxels of the 197 x 233 x 189 volume. Both sides divide by 8, so
# that the U-Net halves them three times without padding.
CROP = (slice(18, 178), slice(21, 213))

# Slices with less tissue than this (mm^2) hold next to no white matter; not trained on.
MIN_TISSUE = 1500

#: Slice 0 lies this many mm from the anterior commissure.
Z_ORIGIN = -72


@dataclass(frozen=True)
class Slices:
    """Axial slices of the scan and their ground truth, S of them.

    Attributes:
        image: (S, 1, H, W) float32, T1 intensity in [0, 1], 0 outside the brain.
        target: (S, T, H, W) bool, grey and white matter.
        mask: (S, 1, H, W) bool, the brain (the scan is skull-stripped).
        number: (S,) int64, slice number in the volume; z in mm is number + Z_ORIGIN.
    """

    image: Tensor
    target: Tensor
    mask: Tensor
    number: Tensor

    def __len__(self) -> int:
        return len(self.number)

    def __getitem__(self, chosen: Tensor | slice) -> Slices:
        return Slices(
            self.image[chosen], self.target[chosen], self.mask[chosen], self.number[chosen]
        )


def load_slices() -> Slices:
    """All axial slices of the MNI ICBM152 T1 volume, cropped to the brain.

    A voxel is a target where its tissue probability exceeds 0.5; grey and white matter cannot
    overlap. The mask is the brain itself: outside it every network is right for free, and air
    would make up most of each negative prototype.
    """
    image = _volume(datasets.load_mni152_template(resolution=1))
    tissue = [
        _volume(datasets.load_mni152_gm_template(resolution=1)),
        _volume(datasets.load_mni152_wm_template(resolution=1)),
    ]
    # (H, W, S) -> (S, 1, H, W)
    image_slices = torch.from_numpy(np.moveaxis(image[CROP], 2, 0)[:, None].copy())
    target = np.stack([np.moveaxis(volume[CROP] > 0.5, 2, 0) for volume in tissue], axis=1)
    return Slices(
        image=image_slices,
        target=torch.from_numpy(target.copy()),
        mask=image_slices > 0,
        number=torch.arange(image_slices.shape[0]),
    )


def _volume(nifti: object) -> NDArray[np.float32]:
    volume: NDArray[np.float32] = nifti.get_fdata(dtype=np.float32)  # type: ignore[attr-defined]
    return volume


def split(slices: Slices, held_out: Sequence[tuple[int, int]], gap: int) -> tuple[Slices, Slices]:
    """Training and held-out slices, with ``gap`` unused slices on either side of each block."""
    number = slices.number
    test = torch.zeros_like(number, dtype=torch.bool)
    near = torch.zeros_like(test)
    for start, stop in held_out:
        test |= (number >= start) & (number < stop)
        near |= (number >= start - gap) & (number < stop + gap)
    enough_tissue = slices.mask.sum(dim=(1, 2, 3)) >= MIN_TISSUE
    train = ~near & enough_tissue
    if not test.any() or not train.any():
        raise DemoError(
            f"held_out={tuple(held_out)} with gap={gap} leaves {int(train.sum())} slices to train "
            f"on and {int(test.sum())} to score; both need at least one."
        )
    return slices[train], slices[test]
