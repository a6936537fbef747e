"""A network and what its output means."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from protoseg_fast.network.hooks import plain
from protoseg_fast.network.layers import unwrap
from protoseg_fast.network.problems import (
    Activation,
    Problems,
    Targets,
    as_tensor,
    probabilities,
    problems_of,
)

__all__ = ["Predictor"]


@dataclass(frozen=True)
class Predictor:
    """A network and what its output means."""

    model: nn.Module
    activation: Activation
    targets: Targets
    pick: Callable[[Any], Any]

    def image(self, image: Any) -> Tensor:
        """Return the image as the tensor that the network takes."""
        if not isinstance(image, Tensor):
            image = as_tensor("image", image, torch.device("cpu"))
            parameter = next(unwrap(self.model).parameters(), None)
            image = image if parameter is None else image.to(parameter)
        if not 3 <= image.dim() <= 5:
            raise ValueError(
                "image must be (N, C, *size) with 1 to 3 spatial axes, got shape "
                f"{tuple(image.shape)}."
            )
        if self.model.training:
            warnings.warn(
                "model is in training mode: dropout makes it random, and batch normalisation uses "
                "and updates this batch's statistics. Call model.eval() first.",
                stacklevel=4,
            )
        return image

    def logits(self, image: Tensor) -> Tensor:
        """Run the network; its output (N, K, *size)."""
        logits = self.pick(self.model(image))
        tensor = isinstance(logits, Tensor)
        if not tensor or logits.dim() != image.dim() or not logits.is_floating_point():
            found = f"{tuple(logits.shape)} {logits.dtype}" if tensor else type(logits).__name__
            raise ValueError(
                f"The network must put out floating (N, K, *size) with the {image.dim()} axes of "
                f"the image, got {found}; pick the right output with prediction=."
            )
        return plain(logits)

    def predict(self, logits: Tensor) -> tuple[Problems, Tensor]:
        """Return the binary problems and their probabilities (N, T, *size)."""
        probability = probabilities(logits, self.activation)
        softmax = self.activation == "softmax"
        problems = problems_of(self.targets, probability.shape[1], softmax=softmax)
        return problems, problems.pred(probability)

    def references(
        self, logits: Tensor, target: Any, mask: Any, ignore_label: int | None
    ) -> tuple[Problems, tuple[Tensor, Tensor | None, Tensor | None]]:
        """Return the binary problems; and pred, truth and mask, as `Guide` takes them, all where
        scores are computed.
        """
        problems, pred = self.predict(logits)
        mask = None if mask is None else as_tensor("mask", mask, pred.device)
        truth = None
        if target is not None:
            truth, counted = problems.truth(target, pred, ignore_label)
            if mask is None:
                mask = counted
            elif counted is not None and mask.shape == counted.shape:  # any other, Guide refuses
                mask = counted * mask
        return problems, (pred, truth, mask)

    @staticmethod
    def check_agreement(first: Tensor, second: Tensor) -> None:
        """Raise ValueError if two runs on the same image differ by more than rounding."""
        if torch.equal(first, second):  # as a rule; allclose takes fifty times as long
            return
        tolerance = 8 * torch.finfo(first.dtype).eps ** 0.75
        scale = float(first.abs().max()) if first.numel() else 0.0
        if first.shape == second.shape and torch.allclose(
            first, second, rtol=0, atol=tolerance * scale, equal_nan=True
        ):
            return
        difference = float((first - second).abs().max()) if first.shape == second.shape else None
        raise ValueError(
            "The network put out something else the second time"
            + ("" if difference is None else f" (by up to {difference:.3g})")
            + ": its features would not belong to its prediction. Switch off dropout and other "
            'randomness with model.eval(), or use keep="memory", which runs it once.'
        )
