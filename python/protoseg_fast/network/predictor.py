"""A network and what its output means."""

from __future__ import annotations

import contextlib
import functools
import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from protoseg_fast.network.hooks import NoSuchOutputError, first_tensor, plain
from protoseg_fast.network.layers import is_conv, unwrap
from protoseg_fast.network.problems import (
    Activation,
    Problems,
    Targets,
    as_tensor,
    probabilities,
    problems_of,
)

__all__ = ["Predictor", "batches_only", "something_else"]


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
            inner = unwrap(self.model)
            weights = itertools.chain(inner.parameters(), inner.buffers())
            like = next((w for w in weights if w.is_floating_point()), image)
            image = image.to(like.device, like.dtype)
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
        try:
            with batches_only(self._convs, image):
                logits = self.pick(self.model(image))
        except NoSuchOutputError as error:
            raise ValueError(f"The network puts out {error}.") from error
        tensor = isinstance(logits, Tensor)
        if not tensor or logits.dim() != image.dim() or not logits.is_floating_point():
            found = f"{tuple(logits.shape)} {logits.dtype}" if tensor else type(logits).__name__
            raise ValueError(
                f"The network must put out floating (N, K, *size) with the {image.dim()} axes of "
                f"the image, got {found}; pick the right output with prediction=."
            )
        return plain(logits)

    @functools.cached_property
    def _convs(self) -> list[nn.Module]:
        return [module for module in unwrap(self.model).modules() if is_conv(module)]

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
            truth, counted = problems.truth(target, pred, mask, ignore_label)
            if mask is None:
                mask = counted
            elif counted is not None and mask.shape == counted.shape:  # any other, Guide refuses
                # negative weights stay, for Guide to refuse them
                left = torch.zeros_like(mask) if mask.dtype == torch.bool else mask.clamp(max=0)
                mask = torch.where(counted, mask, left)
        return problems, (pred, truth, mask)

    @staticmethod
    def check_agreement(first: Tensor, second: Tensor) -> None:
        """Raise ValueError if two runs on the same image differ by more than rounding."""
        if torch.equal(first, second):  # as a rule; comparing otherwise takes fifty times as long
            return
        how = ""
        if first.shape == second.shape:
            finite = first.isfinite() & second.isfinite()
            same = (first == second) | (first.isnan() & second.isnan())
            sizes, differences = (torch.where(finite, x.abs(), 0) for x in (first, first - second))
            tolerance = 8 * torch.finfo(first.dtype).eps ** 0.75 * float(sizes.max())
            if (finite | same).all() and float(differences.max()) <= tolerance:
                return
            if differences.any():
                how = f" (by up to {float(differences.max()):.3g})"
        raise something_else(how)


@contextlib.contextmanager
def batches_only(modules: Iterable[nn.Module], image: Tensor) -> Iterator[None]:
    """Within the block, convolutions refuse an image that is given to them without a batch: they
    would take it, and its channels be taken for images.
    """

    def refuse(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = first_tensor([*args, *kwargs.values()])
        if given is not None and given.shape == image.shape:  # what layers make of it is theirs
            raise ValueError(
                f"image must be a batch (N, C, *size), but {type(module).__name__} takes "
                f"{tuple(image.shape)} for one image; pass image[None]."
            )

    with contextlib.ExitStack() as stack:
        for module in modules:
            if is_conv(module) and len(module.kernel_size) == image.dim() - 1:
                register = module.register_forward_pre_hook
                stack.callback(register(refuse, with_kwargs=True).remove)
        yield


def something_else(how: str = "") -> ValueError:
    """Return the error of a network that does not repeat itself."""
    return ValueError(
        f"The network put out something else the second time{how}: its features would not belong "
        "to its prediction. Switch off dropout and other randomness with model.eval(), or use "
        'keep="memory", which runs it once.'
    )
