"""Whole networks: are tables right, and what does tracing add to a forward pass?"""

from __future__ import annotations

import importlib.util
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch

import protoseg_fast
from gpu.device import Device
from protoseg_fast.demo.unet import UNet
from protoseg_fast.network import devices

Report = dict[str, Any]

#: Sweeps that are scored in different ways; tables need pandas. None: a trace, which does not.
KINDS: dict[str, dict[str, Any] | None] = {
    "trace": None,
    "two passes": {},
    "one pass, copies": {"keep": "memory"},
    "windows, prototypes of the volume": {"window": 32, "scope": "volume"},
    "windows, prototypes of the window": {"window": 32, "scope": "window"},
}


def _network(device: Device, side: int, widths: tuple[int, ...], images: int) -> tuple[Any, Any]:
    torch.manual_seed(0)
    model = UNet(2, widths).to(device.torch_device).eval()
    return model, torch.randn(images, 1, side, side, device=device.torch_device)


@contextmanager
def _same_convolutions() -> Iterator[None]:
    """Both tables are to be of the same features."""
    before, torch.backends.cudnn.deterministic = torch.backends.cudnn.deterministic, True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before


def tracing(device: Device, small: bool) -> Report:
    """Tables of a network scored on the device, against those of the same features on the CPU.

    Prototypes are summed in another order there: voxels within rounding of a boundary may differ.
    """
    model, image = _network(device, 64, (2, 4) if small else (16, 32, 64), 1 if small else 2)
    target = image > 0.8
    failures, skipped, cases = [], [], 0
    for name, options in list(KINDS.items())[:: 3 if small else 1]:
        if options is not None and importlib.util.find_spec("pandas") is None:
            skipped.append(f"{name}: pandas is not installed")
            continue
        cases += 1
        with _same_convolutions():
            cpu = torch.device("cpu")
            with mock.patch.object(devices, "scoring_device", return_value=cpu):
                expected = _counts(protoseg_fast, model, image, target, options, cpu)
            with device.package() as psf:
                found = _counts(psf, model, image, target, options, image.device)
        worst = max(int(np.abs(x - y).max()) for x, y in zip(found, expected, strict=True))
        if worst > 1 + 1e-4 * image[0].numel():
            failures.append({"case": name, "error": f"counts differ by up to {worst} voxels"})
    return {"ok": not failures, "cases": cases, "failures": failures, "left_out": skipped}


def _counts(
    psf: Any, model: Any, image: Any, target: Any, options: dict[str, Any] | None, device: Any
) -> list[Any]:
    """Arrays that must agree: counts of all rows, and 1000 times whether they are (un)defined."""
    target = target.expand(-1, 2, -1, -1)
    if options is not None:
        frame = psf.segmentation_ability_map(model, image, target=target, **options).to_pandas()
        frame["sa"] = 1000 * frame["sa"].isna()
        return [frame[name].to_numpy() for name in ("tp", "predicted", "actual", "sa")]
    with torch.inference_mode():
        pred = model(image).sigmoid()
        guide = psf.Guide(pred.to(device), target.to(device))
        with psf.trace(model, ["input", "convs"], guide) as tracer:
            model(image)
    counts = [c._arrays for record in tracer._records for c in record.counts.values()]
    kept = [np.concatenate([c[name].ravel() for c in counts]) for name in ("tp", "predicted")]
    return [*kept, 1000 * np.concatenate([c["defined"].ravel() for c in counts])]


def network(device: Device, small: bool) -> Report:
    """A U-Net's forward pass, alone and while every convolution is traced: as a layer and unit by
    unit, two targets, both references. The guide is in it.
    """
    model, image = _network(
        device, 16 if small else 512, (2, 4) if small else (32, 64, 128, 256), 1 if small else 4
    )
    with torch.inference_mode():
        pred = model(image).sigmoid()
    target = pred > pred.median()
    rows = 0

    def forward() -> None:
        with torch.inference_mode():
            model(image)

    def traced() -> None:
        nonlocal rows
        with psf.trace(model, "convs", psf.Guide(pred, target)) as tracer:
            forward()
        rows = sum(int(np.prod(c.tp.shape)) for r in tracer._records for c in r.counts.values())

    repeats = 1 if small else 20
    with device.package() as psf:
        forward()
        traced()
        plain = statistics.median(device.seconds(forward) for _ in range(repeats))
        scored = statistics.median(device.seconds(traced) for _ in range(repeats))
    share = scored / plain - 1
    return {"ok": rows > 0, "scores": rows, "forward_s": plain, "scored_s": scored, "share": share}
