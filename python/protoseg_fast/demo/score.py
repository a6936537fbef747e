"""Scoring every unit of a network while it runs, by plain forward hooks.

A hook sees the features of its layer, scores them against guides made from the network's own
output, and lets go of them: activations are never stored.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn

import protoseg_fast as psf
from protoseg_fast.demo.data import Slices
from protoseg_fast.demo.degrade import Degradation
from protoseg_fast.demo.records import OUTPUT, TRUTH, Records
from protoseg_fast.demo.unet import UNet

BATCH = 8

#: Names of the layers that are not convolution blocks.
IMAGE_LAYER, OUTPUT_LAYER = "image", "output"

Visit = Callable[[str, Tensor], None]


@dataclass(frozen=True)
class Layer:
    """One scored layer: its name, number of units and feature size (height, width)."""

    name: str
    units: int
    size: tuple[int, int]


@dataclass(frozen=True)
class Sweep:
    """What came out of scoring a network.

    Attributes:
        scores: one row per slice, degradation, layer, unit, target and reference.
        mean_sa: one row per slice, degradation and target: ``mean_sa`` over the layers of the
            network (no ground truth used) and ``layers``, how many of them it averages.
        layers: image, convolution blocks, output, in the order they run.
        images: how many images were scored.
        forward_s: seconds of plain forward passes, one per image, no hooks.
        scoring_s: per reference, seconds of scoring every unit and layer of the same images.
    """

    scores: pd.DataFrame
    mean_sa: pd.DataFrame
    layers: list[Layer]
    images: int
    forward_s: float
    scoring_s: dict[str, float]


@contextmanager
def hooked(modules: Mapping[str, nn.Module], visit: Visit) -> Iterator[None]:
    """Within the block, each module's output is passed to ``visit(name, output)``.

    The hooks are removed on the way out, exceptions included.
    """
    handles = []
    try:
        for name, module in modules.items():

            def hook(_module: nn.Module, _inputs: object, output: Tensor, name: str = name) -> None:
                visit(name, output)

            handles.append(module.register_forward_hook(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()


def predict(model: nn.Module, image: Tensor, device: torch.device) -> Tensor:
    """The network's probabilities (N, T, H, W) on the CPU, for an image (N, 1, H, W)."""
    with torch.inference_mode():
        pred: Tensor = model(image.to(device)).sigmoid().cpu()
    return pred


def visit_layers(
    model: UNet, image: Tensor, pred: Tensor, device: torch.device, visit: Visit
) -> None:
    """Pass the image, the output of every convolution block and the probabilities to ``visit``.

    All arrive as CPU tensors: the demo scores on the CPU, wherever the network runs.
    """
    blocks = dict(model.blocks.items())
    visit(IMAGE_LAYER, image)
    with torch.inference_mode(), hooked(blocks, lambda name, x: visit(name, x.cpu())):
        model(image.to(device))
    visit(OUTPUT_LAYER, pred)


class _Scorer:
    """Scores the layers of one batch and times itself."""

    def __init__(self, records: Records, degradation: str, part: Slices, pred: Tensor) -> None:
        self.seconds = {TRUTH: 0.0, OUTPUT: 0.0}
        self.guides: dict[str, psf.Guide] = {}
        for reference, target in ((TRUTH, part.target), (OUTPUT, None)):
            with self._timed(reference):
                self.guides[reference] = psf.Guide(pred, target, part.mask)
        self.records = records
        self.degradation = degradation
        self.number = part.number
        self.layers: list[Layer] = []
        self.block_scores: list[Tensor] = []

    def __call__(self, name: str, features: Tensor) -> None:
        """Score one layer (N, C, h, w): the layer as a whole and each unit, both references."""
        self.layers.append(Layer(name, features.shape[1], (features.shape[2], features.shape[3])))
        for reference, guide in self.guides.items():
            with self._timed(reference):
                layer = guide.sa_counts(features, groups="layer")
                units = guide.sa_counts(features, groups="unit")
            self.records.add(self.degradation, self.number, name, reference, layer, whole=True)
            self.records.add(self.degradation, self.number, name, reference, units, whole=False)
            if reference == OUTPUT and name not in (IMAGE_LAYER, OUTPUT_LAYER):
                self.block_scores.append(layer.dice)

    def mean_sa(self) -> tuple[Tensor, Tensor]:
        """Mean over the convolution blocks of the layer's SA against the output; (N, T) each."""
        with self._timed(OUTPUT):
            value, count = psf.mean_sa(self.block_scores)
        return value, count

    @contextmanager
    def _timed(self, reference: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[reference] += time.perf_counter() - start


def score_network(
    model: UNet,
    slices: Slices,
    degradations: Sequence[Degradation],
    *,
    device: torch.device,
    seed: int,
    on_batch: Callable[[], None],
) -> Sweep:
    """Score every convolution block and unit, the image and the output, on every degradation.

    Args:
        model: the network, in evaluation mode, on ``device``.
        slices: the slices to score, S of them.
        degradations: how to spoil them; each is applied to all slices.
        device: where the network runs; scoring runs on the CPU.
        seed: of the degradations.
        on_batch: called after each of ``batches(len(slices), len(degradations))`` batches.
    """
    records = Records()
    layers: list[Layer] = []
    forward_s = 0.0
    scoring_s = {TRUTH: 0.0, OUTPUT: 0.0}
    # The first pass at a new size sets up the convolutions; it would flatter the ratio.
    predict(model, slices.image[:BATCH], device)
    for degradation in degradations:
        image = degradation(slices.image, slices.mask, seed)
        for start in range(0, len(slices), BATCH):
            part = slices[start : start + BATCH]
            part_image = image[start : start + BATCH]
            begin = time.perf_counter()
            pred = predict(model, part_image, device)
            forward_s += time.perf_counter() - begin
            scorer = _Scorer(records, degradation.name, part, pred)
            visit_layers(model, part_image, pred, device, scorer)
            records.add_mean_sa(degradation.name, part.number, *scorer.mean_sa())
            records.add_prediction(degradation.name, part, pred)
            scoring_s = {name: scoring_s[name] + s for name, s in scorer.seconds.items()}
            layers = scorer.layers
            on_batch()
    return Sweep(
        scores=records.scores([layer.name for layer in layers]),
        mean_sa=records.mean_sa(),
        layers=layers,
        images=len(slices) * len(degradations),
        forward_s=forward_s,
        scoring_s=scoring_s,
    )


def batches(slices: int, degradations: int) -> int:
    """How many batches ``score_network`` takes."""
    return degradations * -(-slices // BATCH)
