"""Deep supervision: a loss on hidden layers of any network. Imports torch."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from protoseg_fast.losses import SALoss
from protoseg_fast.network.hooks import Uncopied

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
        self._recording = False  # whether the pass began with gradients
        self._without_gradients: set[str] = set()  # layers of it that ran without
        self._handles: list[Any] = []

    def __enter__(self) -> DeepSupervision:
        if self._handles:
            raise RuntimeError("This deep supervision is already in use.")
        modules = dict(self._model.named_modules())
        self._handles.append(self._model.register_forward_pre_hook(Uncopied(self._begin)))
        for name in self.weights:
            hook = Uncopied(self._keep(name))
            self._handles.append(modules[name].register_forward_hook(hook))
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
            RuntimeError: if a layer has not been through a forward pass since the last call, or
                ran without gradients in one that had them.
        """
        missing = self.weights.keys() - self._features.keys()
        if missing:
            raise RuntimeError(
                f"No features of {sorted(missing)}: call the model inside the with block before "
                "each loss(); layers that a forward pass skips cannot be supervised, nor those of "
                "a model that was compiled and run before the block."
            )
        if self._without_gradients and torch.is_grad_enabled():
            raise RuntimeError(
                f"{sorted(self._without_gradients)} ran without gradients in a pass that had them: "
                "under torch.no_grad(), or in a checkpoint, which has to be one with "
                "use_reentrant=False."
            )
        total = sum(
            weight * self._criterion(self._features.pop(name), pred, target, mask)
            for name, weight in self.weights.items()
        )
        result: Tensor = total / sum(self.weights.values())  # type: ignore[assignment]
        return result

    def _begin(self, *_: Any) -> None:
        self._forget()
        self._recording = torch.is_grad_enabled()

    def _forget(self) -> None:
        self._features.clear()
        self._without_gradients.clear()

    def _keep(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if not isinstance(output, Tensor):
                raise TypeError(
                    f"Layer {name!r} ({type(module).__name__}) returns "
                    f"{type(output).__name__}, not a tensor; choose a layer inside it."
                )
            self._features[name] = output.clone()  # in-place activations overwrite it
            # A later call may have them: the last output counts.
            self._without_gradients.discard(name)
            if self._recording and not torch.is_grad_enabled():
                self._without_gradients.add(name)

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
            mapping, with the weight of each: a module's is that of its name, or of the first
            pattern that matches it.
        criterion: called with (features, pred, target, mask) of each layer; default `SALoss()`.

    Returns:
        A context manager; inside, ``.loss(pred, target, mask=None)`` after each forward pass. A
        layer that is called several times in a pass counts with its last output, as it was put
        out, also where an in-place activation overwrites it: a copy is kept for the loss. Copies of
        the model that are made meanwhile (EMA) are not supervised.

    Raises:
        ValueError: for a pattern that matches no module, or weights that are no positive numbers.
        TypeError: for anything but a module, or, in the forward pass, a layer whose output is no
            tensor.

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
    for pattern in sorted(wanted, key=lambda pattern: pattern not in names):  # names first
        weight = _weight(pattern, wanted[pattern])
        matched = fnmatch.filter(names, pattern)
        if not matched:
            raise ValueError(f"{pattern!r} matches no module; the model has: {', '.join(names)}.")
        for name in matched:
            weights.setdefault(name, weight)
    return DeepSupervision(model, weights, SALoss() if criterion is None else criterion)


def _weight(pattern: str, weight: Any) -> float:
    try:
        found = float("nan") if isinstance(weight, str) else float(weight)
    except (TypeError, ValueError):
        found = float("nan")
    if not found > 0:
        raise ValueError(f"The weight of {pattern!r} must be a positive number, got {weight!r}.")
    return found
