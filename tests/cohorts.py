"""A synthetic data set in the Decathlon layout, and networks to sweep it with."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torch import nn

SIZE = (24, 32, 16)
AFFINE = np.diag([1.5, 1.0, 2.0, 1.0])


def monai_unet() -> nn.Module:
    """A 3-D UNet of MONAI with two classes beside the background."""
    from monai.networks.nets import UNet

    return UNet(3, 1, 3, channels=(8, 16, 32), strides=(2, 2), num_res_units=1)


def slow_monai_unet() -> nn.Module:
    """The same, with a sixth of a second before every pass: time to be killed in."""
    model = monai_unet()
    model.register_forward_pre_hook(lambda _module, _inputs: time.sleep(1 / 6))
    return model


def small() -> nn.Module:
    """Two convolutions."""
    return nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 3, 1))


def flat() -> nn.Module:
    """Two convolutions for slices with three channels."""
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 1))


class Small(nn.Module):
    """The same network; counts its passes."""

    def __init__(self, passes_without_memory: int = 0, largest: float = np.inf) -> None:
        """Memory runs out in that many passes first, and for more voxels than ``largest``."""
        super().__init__()
        torch.manual_seed(0)
        self.layers = small()
        self.without_memory, self.largest = passes_without_memory, largest
        self.passes = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        if self.passes <= self.without_memory or x.shape[2:].numel() > self.largest:
            raise MemoryError("too large")
        return self.layers(x)


def volume(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A noisy ball with a core, and its label map; float32 and uint8 of `SIZE`."""
    generator = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in SIZE), indexing="ij"), axis=-1)
    centre = np.array(SIZE) / 2 + generator.uniform(-2, 2, 3)
    distance = np.linalg.norm((grid - centre) / (1.5, 2, 1), axis=-1)
    label = (distance < generator.uniform(4, 6)).astype(np.uint8) + (distance < 3)
    image = label + generator.normal(0, 0.3, SIZE)
    return image.astype(np.float32), label.astype(np.uint8)


def decathlon(folder: Path, count: int) -> Path:
    """Write a data set of so many cases."""
    training = []
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir(parents=True)
    for i in range(count):
        image, label = volume(i)
        name = f"ball_{i:03d}.nii.gz"
        nib.save(nib.Nifti1Image(image, AFFINE), folder / "imagesTr" / name)
        nib.save(nib.Nifti1Image(label, AFFINE), folder / "labelsTr" / name)
        training.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    text = json.dumps({"name": "Balls", "training": training})
    (folder / "dataset.json").write_text(text)
    return folder


def mortal() -> nn.Module:
    """A network whose process is killed at its third pass, once for all processes."""

    class Mortal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = small()
            self.passes = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.passes += 1
            note = os.environ.get("COHORTS_KILL_ONCE")
            if note and self.passes == 3:
                with contextlib.suppress(FileExistsError):
                    Path(note).touch(exist_ok=False)
                    os.kill(os.getpid(), signal.SIGKILL)
            return self.layers(x)

    return Mortal()
