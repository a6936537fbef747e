"""A whole network in one call: `segmentation_ability_map`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from protoseg_fast.guide import Empty, Groups, Guide, Interpolation, Metric
from protoseg_fast.network.ability_map import SegmentationAbilityMap
from protoseg_fast.network.hooks import LayerHooks, Pick, ReshapeTransform, picker, plain
from protoseg_fast.network.layers import Layers, unwrap
from protoseg_fast.network.problems import (
    Activation,
    Problems,
    Targets,
    as_tensor,
    probabilities,
    problems_of,
)
from protoseg_fast.network.tracer import Tracer, trace

__all__ = ["segmentation_ability_map"]


def segmentation_ability_map(
    model: nn.Module,
    image: Any,
    *,
    target: Any = None,
    mask: Any = None,
    layers: Layers = "convs",
    activation: Activation = "sigmoid",
    targets: Targets = None,
    ignore_label: int | None = None,
    groups: Groups | Sequence[Groups] = ("layer", "unit"),
    metric: Metric = "euclidean",
    interpolation: Interpolation = "linear",
    align_corners: bool = False,
    binarize: float | None = None,
    empty: Empty = "nan",
    guide: Guide | None = None,
    cases: Sequence[int | str] | None = None,
    prediction: Pick = None,
    output: Pick = None,
    reshape_transform: ReshapeTransform = None,
    keep: Literal["memory"] | None = None,
    memory_budget: float = 2**31,
) -> SegmentationAbilityMap:
    """Score every layer and unit of a network on a batch of images.

    Runs the network twice, without gradients and in the mode it is in: once for the prediction
    that guides the prototypes, once with hooks that score every layer as it returns. Nothing of
    the features' size is kept. Both passes must put out the same, which random networks do not:
    call ``model.eval()`` first. With ``keep="memory"`` the network runs once, and the features of
    the chosen layers are copied until its prediction is known.

    Scores are taken against the ground truth, if given, and always against the network's own
    output, pred > 0.5. He et al. 2023, arXiv:2212.09206.

    Args:
        model: the network.
        image: (N, C, *size), as the network takes it; a tensor, or a NumPy array.
        target: the ground truth. A label map of whole numbers, (N, *size) or (N, 1, *size); or
            binary, (N, T, *size), a channel per target. Its size is that of the prediction.
        mask: (N, 1, *size), the voxels that count, or their weights; None: all.
        layers: see `protoseg_fast.list_layers`.
        activation: what turns the network's output (N, K, *size) into probabilities: "sigmoid",
            "softmax" (over the K classes), None (it puts out probabilities), or a function.
        targets: the binary problems. With softmax: a dictionary of names and classes, or tuples of
            classes for regions, ``{"core": (2, 3), "whole": (1, 2, 3)}``; a list of classes; or
            names of the classes 1 to K-1; None: each of them against the rest. Otherwise each
            channel is a target: names of the channels, or a dictionary with the labels that each
            channel, in order, stands for in a label map (region-based training).
        ignore_label: the value of a label map whose voxels do not count.
        groups: see `protoseg_fast.trace`.
        metric, interpolation, align_corners: see `protoseg_fast.sa_counts`.
        binarize: see `protoseg_fast.Guide`.
        empty: what a score of empty masks is; see `protoseg_fast.Counts.score`.
        guide: of these images, made by hand from torch tensors. The network then runs once, and
            target, mask, activation, ignore_label and binarize have no say; targets may name
            the guide's.
        cases: names of the N images; None: 0, 1, ...
        prediction: where a network puts out more than a tensor (deep supervision, dictionaries):
            the index, the key, or a function that returns the logits; None: the first tensor.
        output, reshape_transform: the same for layers; see `protoseg_fast.trace`.
        keep: "memory" to run the network once and copy features.
        memory_budget: bytes that the copies may take.

    Returns:
        The table; see `SegmentationAbilityMap`.

    Raises:
        ValueError: for layers that do not exist, with the nearest names; shapes, labels or classes
            that do not fit; probabilities outside [0, 1] (a wrong activation); a network that puts
            out something else the second time; copies beyond the budget; or if no layer could be
            scored, with the reasons.
        TypeError: for arguments of other types.

    Examples:
        >>> import torch
        >>> import protoseg_fast as psf
        >>> conv = torch.nn.Conv2d(1, 3, 3, padding=1)
        >>> image, label = torch.rand(1, 1, 32, 32), torch.randint(0, 3, (1, 32, 32))
        >>> sam = psf.segmentation_ability_map(
        ...     torch.nn.Sequential(conv).eval(), image, target=label, activation="softmax"
        ... )
        >>> sam.layers, sam.targets, sam.references
        (['0'], ['1', '2'], ['target', 'output'])
    """
    if keep not in (None, "memory"):
        raise ValueError(f'keep must be None or "memory", got {keep!r}.')
    options = {"metric": metric, "interpolation": interpolation, "align_corners": align_corners}
    hooking = {"output": output, "reshape_transform": reshape_transform}
    tracing: dict[str, Any] = {"groups": groups, "empty": empty, **options, **hooking}
    network = _Network(model, activation, targets, picker("prediction", prediction), binarize)
    image = network.image(image)
    tracer = trace(model, layers, **tracing)
    tracer.cases = cases
    if guide is not None:
        tracer.targets = None if targets is None else [str(name) for name in targets]
        tracer.guide = guide
        with torch.no_grad(), tracer:
            model(image)
        return _result(tracer, None)
    kept = _Kept(model, layers, image, memory_budget, hooking) if keep == "memory" else None
    with torch.no_grad():
        logits = network.logits(image) if kept is None else kept.run(network, image)
        problems, tracer.guide = network.guide(logits, target, mask, ignore_label)
        tracer.targets = problems.names
        if kept is not None:
            kept.score(tracer)
        else:
            with tracer:
                network.check_agreement(logits, network.logits(image))
    return _result(tracer, _Mapper(network, options, hooking))


@dataclass(frozen=True)
class _Network:
    """A network and what its output means."""

    model: nn.Module
    activation: Activation
    targets: Targets
    pick: Callable[[Any], Any]
    binarize: float | None

    def image(self, image: Any) -> Tensor:
        """Return the image as the tensor that the network takes."""
        if not isinstance(image, Tensor):
            image = as_tensor("image", image)
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
                stacklevel=3,
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

    def guide(
        self, logits: Tensor, target: Any, mask: Any, ignore_label: int | None
    ) -> tuple[Problems, Guide]:
        """Return the binary problems, and the guide made of prediction, truth and mask."""
        problems, pred = self.predict(logits)
        mask = None if mask is None else as_tensor("mask", mask)
        truth = None
        if target is not None:
            truth, counted = problems.truth(target, pred.shape, ignore_label)
            if counted is not None:
                mask = counted if mask is None else counted * mask
        return problems, Guide(pred, truth, mask, binarize=self.binarize)

    @staticmethod
    def check_agreement(first: Tensor, second: Tensor) -> None:
        """Raise ValueError if two runs on the same image differ by more than rounding."""
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


class _Kept:
    """Copies of what the chosen layers put out, up to a budget."""

    def __init__(
        self,
        model: nn.Module,
        layers: Layers,
        image: Tensor,
        budget: float,
        hooking: dict[str, Any],
    ) -> None:
        self._features: list[tuple[str, int, Tensor]] = []
        self._bytes, self._budget = 0, budget
        self._images, self._rank = len(image), image.dim()
        self._hooks = LayerHooks(model, layers, self._copy, unfit=self._unfit, **hooking)

    def run(self, network: _Network, image: Tensor) -> Tensor:
        with self._hooks:
            return network.logits(image)

    def score(self, tracer: Tracer) -> None:
        tracer.begin()
        while self._features:
            tracer.score(*self._features.pop(0))
        tracer.commit()
        tracer.skip(self._hooks.skipped)

    def _unfit(self, features: Tensor) -> str | None:
        if features.dim() == self._rank and len(features) == self._images:
            return None
        return f"puts out shape {tuple(features.shape)}"

    def _copy(self, layer: str, call: int, features: Tensor) -> None:
        self._bytes += features.numel() * features.element_size()
        if self._bytes > self._budget:
            raise ValueError(
                f'keep="memory" would copy more than memory_budget={self._budget:.3g} bytes of '
                f'features, reached at layer "{layer}"; raise it, choose fewer layers, or leave '
                "keep out, which copies nothing."
            )
        self._features.append((layer, call, features.clone()))


@dataclass(frozen=True)
class _Mapper:
    """Draws what a unit segments, for `SegmentationAbilityMap.map`."""

    network: _Network
    options: dict[str, Any]
    hooking: dict[str, Any]

    def __call__(self, layer: str, unit: int | str, image: Any, target: int, call: int) -> Tensor:
        found: list[Tensor] = []
        with torch.no_grad():
            image = self.network.image(image)
            _, pred = self.network.predict(self.network.logits(image))
            guide = Guide(pred[:, target : target + 1], binarize=self.network.binarize)

            def visit(_name: str, number: int, features: Tensor) -> None:
                if number != call:
                    return
                channels = features.shape[1]
                if unit != "layer":
                    if isinstance(unit, str) or not 0 <= unit < channels:
                        raise ValueError(
                            f'unit must be "layer" or a channel below {channels}, got {unit!r}.'
                        )
                    features = features[:, unit : unit + 1]
                found.append(guide.segment(features.cpu(), **self.options)[:, 0, 0])

            with LayerHooks(self.network.model, [layer], visit, **self.hooking):
                self.network.model(image)
        if not found:
            raise ValueError(f'Layer "{layer}" has no call {call}.')
        return found[0]


def _result(tracer: Tracer, mapper: _Mapper | None) -> SegmentationAbilityMap:
    result = tracer.result(mapper)
    if not len(result):
        reasons = [f'"{name}" {reason}' for name, reason in tracer.skipped.items()]
        raise ValueError(f"No layer could be scored: {'; '.join(reasons) or 'none was called'}.")
    return result
