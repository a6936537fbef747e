"""A whole network: the demo's U-Net, every layer and unit of it scored while it runs.

The network is trained for a few seconds on the demo's brain scan, since what a score costs depends
on the activations: on how many cells of a unit straddle its threshold.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from contenders import BATCHED, CONTENDERS, EXPERT, LOOP, OURS, Contender
from measure import (
    Result,
    Row,
    Settings,
    oracle,
    summarise_seconds,
    take_groups,
    thread_count,
    verify,
)
from timing import Entry, time_entries
from torch import Tensor, nn
from torch.nn import functional
from workloads import Inputs, Workload

import protoseg_fast as psf

NETWORK_NAME = "U-Net, all layers and units, 256²"
FORWARD = "forward pass"
TOTAL = "forward pass while protoseg_fast scores"

#: Layers whose activations are timed on their own, as a curve.
SHOWN = ("enc1b", "enc2b", "enc3b", "enc4b", "dec1b")

#: Share of the units of every layer that slow contenders score; their times are scaled up.
UNIT_SHARE = {LOOP: 1 / 8, BATCHED: 1 / 8}

Visit = Callable[[str, Tensor], None]


@dataclass
class Network:
    """A network in evaluation mode, an image (1, 1, *size), and the guide of its output.

    Attributes:
        blocks: the layers to score, by name.
        pred: (1, T, *size), its probabilities.
        target: (1, T, *size) bool, the ground truth.
        note: how it was trained.
    """

    model: nn.Module
    blocks: Mapping[str, nn.Module]
    image: Tensor
    pred: Tensor
    target: Tensor
    note: str


class NetworkUnavailableError(Exception):
    """Says why there is no network to score."""


def load(steps: int, side: int, device: str = "cpu") -> Network:
    """Train the demo's network for a few steps; the image is a held-out slice at side x side.

    Raises:
        NetworkUnavailableError: the demo's dependencies are not installed.
    """
    try:
        from protoseg_fast.demo.data import load_slices
        from protoseg_fast.demo.train import train
    except ImportError as error:
        raise NetworkUnavailableError(f'{error}; pip install ".[demo]"') from error
    slices = load_slices()
    middle = len(slices) // 2
    model, losses = train(
        slices[: middle - 5], steps=steps, seed=0, device=torch.device(device), on_step=_ignore
    )
    size = (side, side)
    image = functional.interpolate(slices.image[middle : middle + 1], size, mode="bilinear")
    target = functional.interpolate(slices.target[middle : middle + 1].float(), size) > 0.5
    image, target = image.to(device), target.to(device)
    image = image.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        pred = model(image).sigmoid()
    note = f"trained for {steps} steps to a loss of {losses[-1]:.2f}"
    return Network(model, dict(model.blocks.items()), image, pred.contiguous(), target, note)


def _ignore(loss: float) -> None:
    """Nothing to show while training."""


@contextmanager
def hooked(blocks: Mapping[str, nn.Module], visit: Visit) -> Iterator[None]:
    """Within the block, every module's output goes to ``visit(name, output)``."""
    handles = [
        module.register_forward_hook(lambda _m, _i, output, name=name: visit(name, output))
        for name, module in blocks.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def activations(network: Network) -> dict[str, Tensor]:
    """The output of every block, as it comes (channels-last)."""
    outputs: dict[str, Tensor] = {}
    with torch.inference_mode(), hooked(network.blocks, outputs.__setitem__):
        network.model(network.image)
    return outputs


def layer_workload(name: str, features: Tensor, pred: Tensor, groups: str) -> Workload:
    """The workload that scoring one layer of a network is."""
    return Workload(
        f"activations {name}",
        features.shape[1],
        tuple(features.shape[2:]),
        tuple(pred.shape[2:]),
        groups,
        images=len(features),
        targets=pred.shape[1],
        data=name,
    )


def activation_workloads(network: Network) -> list[tuple[Workload, Inputs]]:
    """A curve of units of the network's layers, in plain memory as the other workloads."""
    found = []
    for name, features in activations(network).items():
        if name in SHOWN:
            workload = layer_workload(name, features, network.pred, "unit")
            workload = replace(
                workload, name=f"curve activations: {name}", curve="activations", x=name
            )
            found.append((workload, Inputs(features.contiguous(), network.pred, network.target)))
    return found


class _Ours:
    """Scores layers as they come; the guide is made anew for every image."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.guide: psf.Guide | None = None
        self.timed = self.groups = sum(x.shape[1] for x in activations(network).values())

    def __call__(self, name: str, features: Tensor) -> tuple[Tensor, float]:
        start = time.perf_counter()
        if self.guide is None:
            self.guide = psf.Guide(self.network.pred, self.network.target)
        layer = self.guide.sa_score(features, groups="layer")
        units = self.guide.sa_score(features, groups="unit")
        seconds = time.perf_counter() - start
        return torch.cat([layer, units], dim=1), seconds

    def forget(self) -> None:
        self.guide = None


class _Peer:
    """Scores layers by a contender, as layer and as units; a share of the units, scaled up."""

    def __init__(self, contender: Contender, network: Network) -> None:
        self.calls: dict[str, list[tuple[Workload, int, Callable[[Tensor], Tensor]]]] = {}
        self.groups = self.timed = 0
        for name, features in activations(network).items():
            inputs = Inputs(features, network.pred, network.target)
            self.calls[name] = []
            for groups in ("layer", "unit"):
                workload = layer_workload(name, features, network.pred, groups)
                share = UNIT_SHARE.get(contender.name, 1) if groups == "unit" else 1
                count = max(1, int(share * workload.group_count))
                with torch.inference_mode():
                    sample = take_groups(workload, features, count)
                    call = contender.prepare(workload, inputs, sample).call
                self.calls[name].append((workload, count, call))
            self.groups, self.timed = self.groups + features.shape[1], self.timed + count

    def __call__(self, name: str, features: Tensor) -> tuple[Tensor, float]:
        scores, seconds = [], 0.0
        for workload, count, call in self.calls[name]:
            taken = take_groups(workload, features, count)
            start = time.perf_counter()
            scores.append(call(taken))
            _wait(taken)
            seconds += (time.perf_counter() - start) * workload.group_count / count
        return torch.cat(scores, dim=1), seconds

    def forget(self) -> None:
        pass


Scorer = _Ours | _Peer


def scored_forward(network: Network, scorer: Scorer) -> tuple[float, float, dict[str, Tensor]]:
    """Seconds of scoring, seconds of the whole pass, and scores (1, 1 + units, T) by layer."""
    inside = 0.0
    scores: dict[str, Tensor] = {}
    scorer.forget()

    def visit(name: str, features: Tensor) -> None:
        nonlocal inside
        _wait(features)
        scores[name], seconds = scorer(name, features)
        inside += seconds

    with hooked(network.blocks, visit):
        start = time.perf_counter()
        network.model(network.image)
        _wait(network.image)
        total = time.perf_counter() - start
    return inside, total, scores


def _wait(tensor: Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize()


def measure_network(network: Network, settings: Settings) -> Result:
    """Rows of the forward pass and of scoring every layer and unit by the main contenders."""
    by_name = {contender.name: contender for contender in CONTENDERS}
    result = Result()
    with thread_count(settings.threads):
        scorers: dict[str, Scorer] = {
            name: _Peer(by_name[name], network) for name in (LOOP, BATCHED, EXPERT)
        }
        if network.image.device.type == "cpu":
            scorers[OURS] = _Ours(network)
        else:
            result.skipped.append((NETWORK_NAME, OURS, "this version scores on the CPU"))
        _check(network, scorers)
        entries = [Entry(FORWARD, lambda image: _forward(network, image), [network.image])]
        entries += [
            Entry(name, lambda image, s=scorer: scored_forward(network, s)[0], [network.image])
            for name, scorer in scorers.items()
        ]
        if OURS in scorers:
            ours = scorers[OURS]
            entries.append(
                Entry(TOTAL, lambda image: scored_forward(network, ours)[1], [network.image])
            )
        time_entries(entries, settings.budget_s, clock=lambda call: call())
    result.rows = _summarise(network, entries, scorers)
    return result


def _forward(network: Network, image: Tensor) -> float:
    start = time.perf_counter()
    network.model(image)
    _wait(image)
    return time.perf_counter() - start


def _check(network: Network, scorers: Mapping[str, Scorer]) -> None:
    """Three layers, as units and as a whole, against the specification."""
    with torch.inference_mode():
        found = {name: scored_forward(network, scorer)[2] for name, scorer in scorers.items()}
    for layer, features in activations(network).items():
        if layer not in SHOWN[::2]:
            continue
        inputs = Inputs(features, network.pred, network.target)
        for groups, part in (("layer", slice(0, 1)), ("unit", slice(1, None))):
            workload = layer_workload(layer, features, network.pred, groups)
            expected = oracle(workload, inputs, budget=1.0)
            for name, scores in found.items():
                verify(workload, name, scores[layer][:, part], expected)


def _summarise(network: Network, entries: list[Entry], scorers: Mapping[str, Scorer]) -> list[Row]:
    rows = [summarise_seconds(NETWORK_NAME, entry) for entry in entries]
    medians = {row.contender: row.median_s for row in rows}
    for row in rows:
        row.note = network.note if row.contender == FORWARD else ""
        if row.contender in scorers:
            row.groups, row.timed = (
                scorers[row.contender].groups,
                scorers[row.contender].timed,
            )
        row.times_limit = row.median_s / medians[FORWARD]
        row.times_ours = row.median_s / medians[OURS] if OURS in medians else None
    return rows
