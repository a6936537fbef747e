"""What units segment, as maps: for `SegmentationAbilityMap.map`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from protoseg_fast.guide import Guide, is_whole
from protoseg_fast.network.devices import beside
from protoseg_fast.network.hooks import LayerHooks
from protoseg_fast.network.layers import ExactName, Layers
from protoseg_fast.network.predictor import Predictor
from protoseg_fast.network.problems import as_tensor
from protoseg_fast.network.turns import turn_of
from protoseg_fast.network.window_sweep import VolumeGuide, WindowSweep

__all__ = ["ImageMapper", "WindowMapper"]


@dataclass(frozen=True)
class ImageMapper:
    """Draws what a unit segments, for `SegmentationAbilityMap.map`."""

    network: Predictor
    options: dict[str, Any]
    hooking: dict[str, Any]
    binarize: float | None

    def __call__(
        self, layer: str, unit: int | str, image: Any, target: int, call: int, mask: Any
    ) -> Tensor:
        found: list[Tensor] = []
        with torch.no_grad(), turn_of(self.network.model):
            image = self.network.image(image)
            _, pred = self.network.predict(self.network.logits(image))
            pred = pred[:, target : target + 1]
            guide = Guide(pred, mask=_tensor(mask, pred), binarize=self.binarize)
            guide.check()

            def visit(_name: str, number: int, features: Tensor) -> None:
                if number == call:
                    part = features[:, channels_of(unit, features)]
                    found.append(guide.segment(beside(guide, part), **self.options)[:, 0, 0])

            with LayerHooks(self.network.model, [ExactName(layer)], visit, **self.hooking):
                self.network.model(image)
        return called(found[0] if found else None, layer, call)


@dataclass(frozen=True)
class WindowMapper:
    """The same, window by window."""

    sweep: Callable[[Tensor, Layers], WindowSweep]
    network: Predictor
    scope: str
    binarize: float | None

    def __call__(
        self, layer: str, unit: int | str, image: Any, target: int, call: int, mask: Any
    ) -> Tensor:
        with torch.no_grad(), turn_of(self.network.model):
            sweep = self.sweep(self.network.image(image), [ExactName(layer)])
            _, pred = self.network.predict(sweep.predict())
            guide = VolumeGuide.of(
                sweep, (pred[:, target : target + 1], None, _tensor(mask, pred)), self.binarize
            )
            prototypes = sweep.prototypes(guide) if self.scope == "volume" else None
            drawn = sweep.maps(guide, prototypes, call, lambda x: channels_of(unit, x))
        return called(drawn, layer, call)


def _tensor(mask: Any, pred: Tensor) -> Tensor | None:
    return None if mask is None else as_tensor("mask", mask, pred.device)


def channels_of(unit: int | str, features: Tensor) -> slice:
    """Return the channels that a unit, or "layer", stands for."""
    channels = features.shape[1]
    if unit == "layer":
        return slice(0, channels)
    if not is_whole(unit) or not 0 <= unit < channels:
        raise ValueError(f'unit must be "layer" or a channel below {channels}, got {unit!r}.')
    return slice(unit, unit + 1)


def called(drawn: Tensor | None, layer: str, call: int) -> Tensor:
    """Return the map, if there was such a call."""
    if drawn is None:
        raise ValueError(f'Layer "{layer}" has no call {call}.')
    return drawn
