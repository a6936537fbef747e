"""Deep supervision: a loss on hidden layers of any network. Imports torch."""

from __future__ import annotations

import fnmatch
import numbers
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from protoseg_fast.losses import SALoss

__all__ = ["DeepSupervision", "deep_supervision"]

LayerLoss = Callable[..., Tensor]


class DeepSupervision:
    """Collects the outputs of chosen layers and sums a loss over them; see `deep_supervision`."""

    def __init__(self, model: nn.Module, weights: dict[str, float], criterion: LayerLoss) -> None:
        self.weights = weights
        """The weight of every layer chosen, by its name in ``model.named_modules()``."""
        self._model = model
        self._criterion = criterion
        self._features: dict[str, Tensor] = {}
        # What layers put out, and the version that was kept: in-place activations overwrite it.
        self._outputs: dict[str, tuple[Tensor, int]] = {}
        self._copied = set(weights)
        self._without_gradients: set[str] = set()
        self._handles: list[Any] = []

    def __enter__(self) -> DeepSupervision:
        if self._handles:
            raise RuntimeError("This deep supervision is already in use.")
        modules = dict(self._model.named_modules())
        self._handles.append(self._model.register_forward_pre_hook(self._forget))
        for name in self.weights:
            self._handles.append(modules[name].register_forward_hook(self._keep(name)))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.remove()

    def remove(self) -> None:
        """Take the hooks off the model and forget what they kept; does nothing a second time."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._forget()

    def loss(self, pred: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the weighted mean of the loss over the layers of the last forward pass.

        Args:
            pred: (N, T, *size) probabilities that guide the prototypes.
            target: (N, T, *size) 0 or 1.
            mask: (N, 1, *size) voxels that count, or None.

        Returns:
            A scalar: sum of weight x loss over the layers, divided by the sum of their weights.

        Raises:
            RuntimeError: if a layer has not been through a forward pass since the last call, ran
                without gradients, or was overwritten in place for the first time.
        """
        missing = self.weights.keys() - self._features.keys()
        if missing:
            raise RuntimeError(
                f"No features of {sorted(missing)}: call the model inside the with block before "
                "each loss(); layers that a forward pass skips cannot be supervised, nor those of "
                "a model that was compiled and run before the block."
            )
        if torch.is_grad_enabled() and self._without_gradients:
            raise RuntimeError(
                f"{sorted(self._without_gradients)} ran without gradients: under torch.no_grad(), "
                "or in a checkpoint, which has to be one with use_reentrant=False."
            )
        self._check_overwritten()
        total = sum(
            weight * self._criterion(self._features.pop(name), pred, target, mask)
            for name, weight in self.weights.items()
        )
        result: Tensor = total / sum(self.weights.values())  # type: ignore[assignment]
        return result

    def _check_overwritten(self) -> None:
        """Learn which layers have to be copied: those that what follows overwrites in place."""
        changed = {name for name, (x, version) in self._outputs.items() if x._version != version}
        lost = changed - self._copied
        self._copied = (self._copied - self._outputs.keys()) | changed
        self._outputs.clear()
        if lost:
            self._features.clear()
            raise RuntimeError(
                f"What {sorted(lost)} put out was overwritten in place, as in no pass before; run "
                "the model once more: from now on it is copied."
            )

    def _forget(self, *_: Any) -> None:
        self._features.clear()
        self._outputs.clear()
        self._without_gradients.clear()

    def _keep(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if not isinstance(output, Tensor):
                raise TypeError(
                    f"Layer {name!r} ({type(module).__name__}) returns "
                    f"{type(output).__name__}, not a tensor; choose a layer inside it."
                )
            self._features[name] = output.clone() if name in self._copied else output
            if not torch.is_grad_enabled():
                self._without_gradients.add(name)
            if not output.is_inference():  # whose versions are not counted
                self._outputs[name] = output, output._version

        return hook


def deep_supervision(
    model: nn.Module,
    layers: Iterable[str] | Mapping[str, float],
    criterion: LayerLoss | None = None,
) -> DeepSupervision:
    """Add a loss over hidden layers, through forward hooks that are given back on exit.

    Args:
        model: any network; it is not changed but for the hooks, within the ``with`` block.
        layers: names of modules as in ``model.named_modules()``, or patterns ("encoder.*"); as a
            mapping, with the weight of each: a module's is that of the first that matches it.
        criterion: called with (features, pred, target, mask) of each layer; default `SALoss()`.

    Returns:
        A context manager; inside, ``.loss(pred, target, mask=None)`` after each forward pass. A
        layer that is called several times in a pass counts with its last output, as it was put
        out: of layers that an in-place activation overwrites, a copy is kept until the loss.

    Raises:
        ValueError: for a pattern that matches no module, or weights that are not positive.
        TypeError: for anything but a module, weights that are no numbers, or, in the forward pass,
            a layer whose output is no tensor.

    Examples:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Conv2d(4, 1, 3))
        >>> image, target = torch.randn(1, 1, 12, 12), torch.rand(1, 1, 8, 8) > 0.5
        >>> with deep_supervision(model, {"0": 0.5}) as supervision:
        ...     pred = model(image).sigmoid()
        ...     loss = supervision.loss(pred, target)
        >>> loss.requires_grad
        True
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}.")
    patterns = [layers] if isinstance(layers, str) else layers
    wanted = dict(patterns) if isinstance(patterns, Mapping) else dict.fromkeys(patterns, 1.0)
    if not wanted:
        raise ValueError("layers must name at least one module, got none.")
    names = [name for name, _ in model.named_modules() if name]
    weights: dict[str, float] = {}
    for pattern, weight in wanted.items():
        if not isinstance(weight, numbers.Real):
            raise TypeError(f"The weight of {pattern!r} must be a number, got {weight!r}.")
        if not float(weight) > 0:
            raise ValueError(f"The weight of {pattern!r} must be positive, got {weight!r}.")
        matched = fnmatch.filter(names, pattern)
        if not matched:
            raise ValueError(f"{pattern!r} matches no module; the model has: {', '.join(names)}.")
        for name in matched:
            weights.setdefault(name, float(weight))
    return DeepSupervision(model, weights, SALoss() if criterion is None else criterion)
