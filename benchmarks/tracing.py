"""What `trace` adds to a forward pass: every convolution, as a layer and unit by unit, scored.

Networks are the demo's U-Net, trained for a few seconds, and those of other libraries, if they are
installed, with random weights. Each is scored against the target and its own output in one pass.
The prediction pass is not in it; the guide, which is made once per image, is.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from measure import Result, Row, Settings, summarise_seconds, thread_count
from network import FORWARD, NetworkUnavailableError, load
from timing import Entry, cpu_clock, time_entries
from torch import Tensor, nn

import protoseg_fast as psf

TRACED = "forward pass, traced"
TABLE = "the table of one pass"


@dataclass
class Traced:
    """A network in evaluation mode, an image, and what its guide is made of."""

    name: str
    model: nn.Module
    image: Tensor
    pred: Tensor
    target: Tensor

    def forward(self, image: Tensor) -> None:
        """The pass alone."""
        self.model(image)

    def traced(self, image: Tensor) -> psf.network.Tracer:
        """The pass, with every convolution scored."""
        guide = psf.Guide(self.pred, self.target)
        with psf.trace(self.model, layers="convs", guide=guide) as tracer:
            self.model(image)
        return tracer


def unet(steps: int, side: int) -> Traced:
    """The demo's U-Net, trained."""
    network = load(steps, side)
    name = f"tracing: U-Net, {side}²"
    return Traced(name, network.model, network.image, network.pred, network.target)


def monai_unet(steps: int, side: int) -> Traced:
    """MONAI's 3-D UNet with residual units."""
    from monai.networks.nets import UNet

    extent = min(side, 96)
    widths = (16, 32, 64, 128, 256)
    model = UNet(3, 1, 2, channels=widths, strides=(2, 2, 2, 2), num_res_units=2)
    return _untrained(f"tracing: MONAI UNet, {extent}³", model, torch.rand(1, 1, *[extent] * 3))


def smp_unet(steps: int, side: int) -> Traced:
    """Segmentation Models PyTorch's Unet on a ResNet-18."""
    import segmentation_models_pytorch as smp

    model = smp.Unet("resnet18", encoder_weights=None, classes=2)
    return _untrained(f"tracing: SMP Unet ResNet-18, {side}²", model, torch.rand(1, 3, side, side))


#: What is measured, each if its library is there.
NETWORKS: tuple[Callable[[int, int], Traced], ...] = (unet, monai_unet, smp_unet)


def measure_tracing(
    make: Callable[[int, int], Traced], steps: int, side: int, settings: Settings
) -> Result:
    """Rows of the forward pass, of the traced one, and of making the table."""
    result = Result()
    if torch.device(settings.device).type != "cpu":
        result.skipped.append((make.__name__, TRACED, "this version scores on the CPU"))
        return result
    try:
        with _seeded():
            network = make(steps, side)
    except (ImportError, NetworkUnavailableError, RuntimeError) as reason:
        result.skipped.append((make.__name__, TRACED, str(reason)))
        return result
    with thread_count(settings.threads), torch.inference_mode():
        tracer = network.traced(network.image)
        calls: list[tuple[str, Callable[[Tensor], Any]]] = [
            (FORWARD, network.forward),
            (TRACED, network.traced),
            (TABLE, lambda image: tracer.result()),
        ]
        entries = [Entry(name, call, [network.image]) for name, call in calls]
        time_entries(entries, settings.budget_s, cpu_clock)
    result.rows = [summarise_seconds(network.name, entry) for entry in entries]
    table = tracer.result()
    _note(result.rows, f"{len(table.layers)} layers, {len(table) // 2} scores per reference")
    return result


def _note(rows: list[Row], size: str) -> None:
    forward, traced, _ = rows
    for row in rows:
        row.times_limit = row.median_s / forward.median_s
    added = traced.median_s / forward.median_s - 1
    least = traced.best_s / forward.best_s - 1
    traced.note = f"adds {added:.1%} (fastest calls: {least:.1%}); {size}"


def _untrained(name: str, model: nn.Module, image: Tensor) -> Traced:
    with torch.inference_mode():
        pred = model.eval()(image).softmax(1)[:, 1:].contiguous()
    return Traced(name, model, image, pred, pred > pred.mean())


@contextmanager
def _seeded() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
