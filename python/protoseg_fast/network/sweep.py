"""A whole network in one call: `segmentation_ability_map`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from protoseg_fast.guide import Empty, Groups, Guide, Interpolation, Metric, is_whole
from protoseg_fast.network.ability_map import SegmentationAbilityMap
from protoseg_fast.network.copies import Copies, Keep
from protoseg_fast.network.hooks import LayerHooks, Pick, ReshapeTransform, picker
from protoseg_fast.network.layers import Layers
from protoseg_fast.network.mappers import ImageMapper, WindowMapper
from protoseg_fast.network.predictor import Predictor
from protoseg_fast.network.problems import Activation, Problems, Targets
from protoseg_fast.network.records import Record, case_names
from protoseg_fast.network.tracer import Tracer, check_groups, trace
from protoseg_fast.network.turns import one_thread_at_a_time
from protoseg_fast.network.window_sweep import VolumeGuide, WindowSweep
from protoseg_fast.network.windows import Grid, SlidingWindow

__all__ = ["Observer", "segmentation_ability_map"]


class Observer(Protocol):
    """What a sweep over a cohort keeps of the passes through a network, besides the table."""

    def predicted(
        self, problems: Problems, pred: Tensor, truth: Tensor | None, mask: Tensor | None
    ) -> None:
        """Take pred and truth (N, T, *size) and mask (N, 1, *size) before layers are scored."""

    def scored(self, record: Record, guide: Guide, features: Tensor) -> None:
        """Take what a layer put out, just scored; never called for images run by windows."""


@one_thread_at_a_time
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
    keep: Keep | None = None,
    memory_budget: float = 2**31,
    window: Any = None,
    scope: Literal["volume", "window"] = "volume",
    _observer: Observer | None = None,
) -> SegmentationAbilityMap:
    """Score every layer and unit of a network on a batch of images.

    Runs the network twice, without gradients and in the mode it is in: once for the prediction
    that guides the prototypes, once with hooks that score every layer as it returns. Nothing of
    the features' size is kept. Both passes must put out the same, which random networks do not:
    call ``model.eval()`` first. With ``keep="memory"`` the network runs once, and the features of
    the chosen layers are copied until its prediction is known; with ``keep="auto"`` too, if the
    copies fit into ``memory_budget``, else twice. Scores are the same.

    Images larger than the network's patch are run by ``window``, and scored exactly: sums over
    windows are those of the volume, since every voxel counts in one window only, the one in which
    its importance is largest. The prediction is blended as in MONAI's sliding-window inference.
    With ``scope="volume"`` prototypes are those of the whole volume, and every window is run three
    times: for the prediction, the prototypes, the counts. With ``scope="window"`` each window has
    its own prototypes, of its own voxels, and is run twice. Only features of windows ever exist.
    Windows whose features are copied are run once.

    Scores are taken against the ground truth, if given, and always against the network's own
    output, pred > 0.5. They are computed where the network runs: on its CUDA device, if the
    package was compiled for it, else on the CPU. He et al. 2023, arXiv:2212.09206.

    Args:
        model: the network.
        image: (N, C, *size), as the network takes it; a tensor, or a NumPy array, which is put
            where the network's weights are, in their dtype.
        target: the ground truth. A label map of whole numbers, (N, *size) or (N, 1, *size), with
            softmax of classes only, but for ``ignore_label``; or binary, (N, T, *size), a channel
            per target. Its size is that of the prediction.
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
        keep: "memory" to run the network once and copy features; "auto" to do so if they fit.
        memory_budget: bytes that the copies may take, where the network runs.
        window: the window's extents, a `protoseg_fast.SlidingWindow`, or a MONAI
            ``SlidingWindowInferer``; None: the network takes the image whole. ``feature_size`` is
            then that of a window. Not together with ``guide``.
        scope: whose prototypes a window is scored with: those of the "volume", or of the "window".

    Returns:
        The table; see `SegmentationAbilityMap`.

    Raises:
        ValueError: for layers that do not exist, with the nearest names, or, chosen by name, are
            not called or do not fit; shapes, labels or classes that do not fit; probabilities
            outside [0, 1] (a wrong activation); a network that puts out something else the second
            time; copies beyond the budget; two targets or cases of one name; or if no layer could
            be scored, with the reasons.
        TypeError: for arguments of other types.
        RuntimeError: if another thread runs the network meanwhile; a second call waits instead.

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
    if keep not in (None, "memory", "auto"):
        raise ValueError(f'keep must be None, "memory" or "auto", got {keep!r}.')
    if scope not in ("volume", "window"):
        raise ValueError(f'scope must be "volume" or "window", got {scope!r}.')
    if ignore_label is not None and not is_whole(ignore_label):
        raise TypeError(f"ignore_label must be an int or None, got {ignore_label!r}.")
    options = {"metric": metric, "interpolation": interpolation, "align_corners": align_corners}
    hooking = {"output": output, "reshape_transform": reshape_transform}
    tracing: dict[str, Any] = {"groups": groups, "empty": empty, **options, **hooking}
    network = Predictor(model, activation, targets, picker("prediction", prediction))
    image = network.image(image)
    if window is not None:
        if guide is not None:
            raise ValueError("window goes without guide.")
        if image.numel() == 0:
            raise ValueError(f"image must not be empty, got shape {tuple(image.shape)}.")
        grid = SlidingWindow.of(window).grid(image.shape[2:])
        windows = _Windows(network, grid, check_groups(groups), options, hooking, scope, binarize)
        with torch.no_grad():
            reference = (target, mask, ignore_label)
            copies = None if keep is None else Copies(keep, memory_budget)
            return windows.score(image, layers, reference, cases, empty, _observer, copies)
    tracer = trace(model, layers, **tracing)
    tracer.cases = cases
    if guide is not None:
        tracer.targets = None if targets is None else [str(name) for name in targets]
        tracer.guide = guide
        with torch.no_grad(), tracer:
            model(image)
        tracer.check_called()
        return _scored(tracer.result(), tracer.skipped)
    kept = (
        None if keep is None else _Kept(model, layers, image, hooking, Copies(keep, memory_budget))
    )
    with torch.no_grad():
        logits = network.logits(image) if kept is None else kept.run(network, image)
        problems, arrays = network.references(logits, target, mask, ignore_label)
        tracer.guide, tracer.targets = Guide(*arrays, binarize=binarize), problems.names
        tracer.guide.check()
        if _observer is not None:
            _observer.predicted(problems, *arrays)
            tracer.on_scored = _observer.scored
        if kept is None or not kept.score(tracer):
            with tracer:
                network.check_agreement(logits, network.logits(image))
            tracer.check_called()
    mapper = ImageMapper(network, options, hooking, binarize)
    return _scored(tracer.result(mapper), tracer.skipped)


@dataclass(frozen=True)
class _Windows:
    """What a sweep by windows shares with the maps drawn after it."""

    network: Predictor
    grid: Grid
    groups: tuple[Groups, ...]
    options: dict[str, Any]
    hooking: dict[str, Any]
    scope: str
    binarize: float | None

    def sweep(self, image: Tensor, layers: Layers, copies: Copies | None = None) -> WindowSweep:
        grid = self.grid.geometry.grid(image.shape[2:])
        padded = grid.pad(image, image=True)
        return WindowSweep(
            self.network, padded, grid, layers, self.groups, self.options, self.hooking, copies
        )

    def score(
        self,
        image: Tensor,
        layers: Layers,
        reference: tuple[Any, Any, int | None],
        cases: Sequence[int | str] | None,
        empty: str,
        observer: Observer | None,
        copies: Copies | None,
    ) -> SegmentationAbilityMap:
        names = list(range(len(image))) if cases is None else case_names(cases)
        if len(names) != len(image):
            raise ValueError(f"cases names {len(names)} images, but there are {len(image)}.")
        sweep = self.sweep(image, layers, copies)
        problems, arrays = self.network.references(sweep.predict(), *reference)
        if observer is not None:
            observer.predicted(problems, *arrays)
        guide = VolumeGuide.of(sweep, arrays, self.binarize)
        prototypes = sweep.prototypes(guide) if self.scope == "volume" else None
        records = sweep.records(guide, prototypes, names, problems.names)
        mapper = WindowMapper(self.sweep, self.network, self.scope, self.binarize)
        table = SegmentationAbilityMap.from_records(records, empty=empty, mapper=mapper)
        return _scored(table, sweep.skipped)


class _Kept:
    """A pass whose features are copied, if they fit."""

    def __init__(
        self,
        model: nn.Module,
        layers: Layers,
        image: Tensor,
        hooking: dict[str, Any],
        copies: Copies,
    ) -> None:
        self._copies = copies
        self._images, self._rank = len(image), image.dim()
        self._hooks = LayerHooks(model, layers, copies.add, unfit=self._unfit, **hooking)

    def run(self, network: Predictor, image: Tensor) -> Tensor:
        self._copies.begin_pass()
        with self._hooks:
            return network.logits(image)

    def score(self, tracer: Tracer) -> bool:
        """Score the copies; False: they did not fit."""
        outputs = self._copies.of(0)
        if outputs is None:
            return False
        tracer.begin()
        tracer.score_all(outputs)
        self._copies.clear()
        tracer.commit()
        tracer.skip(self._hooks.skipped)
        self._hooks.check_called()
        return True

    def _unfit(self, features: Tensor) -> str | None:
        if features.dim() == self._rank and len(features) == self._images:
            return None
        return f"puts out shape {tuple(features.shape)}"


def _scored(table: SegmentationAbilityMap, skipped: dict[str, str]) -> SegmentationAbilityMap:
    if len(table):
        return table
    reasons = [f'"{name}" {reason}' for name, reason in skipped.items()]
    raise ValueError(f"No layer could be scored: {'; '.join(reasons) or 'none was called'}.")
