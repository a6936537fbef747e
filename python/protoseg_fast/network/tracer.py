"""Scoring layers while a network runs: `trace`."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from torch import Tensor, nn

from protoseg_fast.guide import Empty, Groups, Guide, Interpolation, Metric
from protoseg_fast.network.ability_map import Mapper, SegmentationAbilityMap
from protoseg_fast.network.devices import beside
from protoseg_fast.network.hooks import LayerHooks, Pick, ReshapeTransform
from protoseg_fast.network.layers import Layers
from protoseg_fast.network.records import (
    WHOLE_LAYER,
    Record,
    case_names,
    check_distinct,
    fetched,
    fitting,
    score_layers,
)

__all__ = ["Tracer", "trace"]


def trace(
    model: nn.Module,
    layers: Layers = "convs",
    guide: Guide | None = None,
    *,
    groups: Groups | Sequence[Groups] = ("layer", "unit"),
    metric: Metric = "euclidean",
    interpolation: Interpolation = "linear",
    align_corners: bool = False,
    empty: Empty = "nan",
    targets: Sequence[str] | None = None,
    output: Pick = None,
    reshape_transform: ReshapeTransform = None,
) -> Tracer:
    """Score layers of a network inside their forward hooks, for people with their own loop.

    Use it as a context. Every forward pass of ``model`` within it adds one case per image of the
    batch. A layer is scored as it returns, before anything can overwrite its features, and the
    features are never kept. Hooks change nothing: they return None, leave other people's hooks and
    train or eval mode alone, and are removed on the way out, exceptions included. Works under
    inference_mode, no_grad, autocast, with half-precision weights, in channels-last memory, with
    MONAI's MetaTensor, and through DataParallel and DistributedDataParallel wrappers. Of a
    compiled model the original modules are run, without compilation, which a warning says.

    Layers are scored on the guide's device; features elsewhere are copied there, one layer at a
    time. On a CUDA device nothing waits for scores before the pass ends: then its counts are
    fetched, and values of pred, target and mask that are none raise what the guide's constructor
    raises on the CPU.

    Args:
        model: the network.
        layers: which ones; see `protoseg_fast.list_layers`. "input" is the image itself.
        guide: of the images of the next forward passes, made from torch tensors. Can be given
            later, and be changed between passes: ``tracer.guide = guide``.
        groups: "layer", "unit", or a number of groups of channels; or "layer" and one of the
            others. Layers whose channels a number does not divide are left out.
        metric, interpolation, align_corners: see `protoseg_fast.sa_counts`.
        empty: what a score of empty masks is; see `protoseg_fast.Counts.score`.
        targets: names of the guide's T targets; "0", "1", ... by default.
        output: for layers that put out more than a tensor: the index, the key, or a function
            that returns the features; None: the first tensor.
        reshape_transform: for features that are not (N, C, *size): a function that makes them so,
            such as `protoseg_fast.vit_reshape_transform`, or a dictionary of layers (as in
            ``layers``) and such functions.

    Returns:
        A `Tracer`; ``tracer.result()`` is the `SegmentationAbilityMap` so far.

    Raises:
        ValueError: for layers that do not exist, with the nearest names; during a forward pass,
            for a layer chosen by name whose features do not fit the guide (layers chosen
            otherwise, and those that are not called, are left out; ``tracer.skipped`` says why),
            and for a case that has been scored before; for two targets of one name.
        RuntimeError: during a forward pass, if another thread runs the network at the same time.
        TypeError: for arguments of other types.

    Examples:
        >>> import torch
        >>> import protoseg_fast as psf
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Conv2d(4, 1, 3)).eval()
        >>> image = torch.rand(1, 1, 32, 32)
        >>> guide = psf.Guide(torch.rand(1, 1, 32, 32), image > 0.5)
        >>> with psf.trace(model, guide=guide) as tracer, torch.inference_mode():
        ...     output = model(image)
        >>> len(tracer.result())  # two references, 5 units and 2 layers
        14
    """
    return Tracer(
        model,
        layers,
        guide,
        groups=groups,
        options={"metric": metric, "interpolation": interpolation, "align_corners": align_corners},
        empty=empty,
        targets=targets,
        output=output,
        reshape_transform=reshape_transform,
    )


class Tracer:
    """The context that `protoseg_fast.trace` returns.

    Attributes:
        guide: of the images of the next forward pass; may be set between passes.
        cases: names of the images of the next pass, one per image; None: numbers.
        targets: names of the guide's targets; None: numbers.
        on_scored: called with each record, its guide and features (N, C, *feature_size), which
            are valid during the call only.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Layers,
        guide: Guide | None,
        *,
        groups: Groups | Sequence[Groups],
        options: dict[str, Any],
        empty: Empty,
        targets: Sequence[str] | None,
        output: Pick,
        reshape_transform: ReshapeTransform,
    ) -> None:
        me = weakref.proxy(self)  # or each would keep the other, and guides, until a collection
        self._hooks = LayerHooks(
            model,
            layers,
            lambda layer, call, features: me.score(layer, call, features),
            unfit=lambda features: me._unfit(features),
            output=output,
            reshape_transform=reshape_transform,
            on_begin=lambda: me.begin(),
            on_end=lambda: me.commit(),
        )
        self._groups = check_groups(groups)
        self._options, self._empty = options, empty
        self.targets = targets
        self.cases = None
        self.on_scored: Callable[[Record, Guide, Tensor], None] | None = None
        self.guide = guide
        self.reset()

    @property
    def cases(self) -> list[int | str] | None:
        """Names of the images of the next pass; None: numbers."""
        return self._cases

    @cases.setter
    def cases(self, cases: Sequence[int | str] | None) -> None:
        self._cases = None if cases is None else case_names(cases)

    @property
    def guide(self) -> Guide | None:
        """The guide of the next forward pass."""
        return self._guide

    @guide.setter
    def guide(self, guide: Guide | None) -> None:
        if guide is not None:
            self._check_guide(guide)
        self._guide = guide

    @property
    def skipped(self) -> dict[str, str]:
        """Layers that were left out of some pass, or called in none, and why."""
        return self._hooks.skipped

    def __enter__(self) -> Tracer:
        self._hooks.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._hooks.__exit__(kind, error, traceback)

    def result(self, mapper: Mapper | None = None) -> SegmentationAbilityMap:
        """Return the table of all passes so far. A pass that raised has no part in it.

        ``mapper`` draws the table's maps; None: it has none.
        """
        records = list(self._records)
        if not self._hooks.failed():
            records += self._pending
        return SegmentationAbilityMap.from_records(records, empty=self._empty, mapper=mapper)

    def reset(self) -> None:
        """Forget all passes so far; the next case is number 0."""
        self._records: list[Record] = []
        self._pending: list[Record] = []
        self._case = 0
        self._taken: set[int | str] = set()
        self._hooks.forget()

    def _check_guide(self, guide: Guide) -> None:
        if not isinstance(guide, Guide):
            raise TypeError(f"guide must be a protoseg_fast.Guide, got {type(guide).__name__}.")
        if guide._kind.module != "torch":
            raise TypeError(
                f"guide must be made from torch tensors, as the features are; its pred came from "
                f"{guide._kind.module}."
            )
        if self.targets is not None and len(self.targets) != guide.targets:
            raise ValueError(
                f"targets names {len(self.targets)} targets, but the guide has {guide.targets}."
            )
        check_distinct("targets", self.targets or ())

    def begin(self) -> None:
        """Begin a pass, as the network's own hook does; what one that raised left is forgotten."""
        self._pending = []
        guide = self._require_guide()
        cases = self._names_of_cases(guide)
        if taken := [case for case in cases if case in self._taken]:
            raise ValueError(
                f"Case {taken[0]!r} has been scored already; name another one, or call reset()."
            )

    def commit(self) -> None:
        """End a pass, as the network's own hook does: its rows count, its cases are used up."""
        guide = self._require_guide()
        pending, self._pending = self._pending, []
        guide.check()
        # Not later: counts of many passes would fill a device with small arrays.
        self._records += fetched(pending)
        self._taken.update(self._names_of_cases(guide))
        self._case += guide.images
        self.cases = None

    def skip(self, skipped: dict[str, str]) -> None:
        """Note layers that were left out, and why."""
        for name, reason in skipped.items():
            self._hooks.leave_out(name, reason)

    def check_called(self) -> None:
        """Raise ValueError for layers that were chosen by their names, but called in no pass."""
        self._hooks.check_called()

    def _names_of_cases(self, guide: Guide) -> Sequence[int | str]:
        return range(self._case, self._case + guide.images) if self.cases is None else self.cases

    def _require_guide(self) -> Guide:
        if self._guide is None:
            raise ValueError("trace needs a guide before the network runs: tracer.guide = guide.")
        return self._guide

    def _unfit(self, features: Tensor) -> str | None:
        guide = self._require_guide()
        if features.dim() == 2 + len(guide.size) and len(features) == guide.images:
            return None
        return (
            f"puts out shape {tuple(features.shape)}, but features must be (N, C, "
            f"{', '.join('xyz'[: len(guide.size)])}) with N = {guide.images} as the guide "
            f"of size {guide.size} has it; reshape_transform can make them so"
        )

    def score(self, layer: str, call: int, features: Tensor) -> None:
        """Score one call of a layer, as its hook does: features (N, C, *feature_size)."""
        self.score_all([(layer, call, features)])

    def score_all(self, outputs: Sequence[tuple[str, int, Tensor]]) -> None:
        """Score several (layer, call, features) together."""
        guide = self._require_guide()
        cases = self._names_of_cases(guide)
        if len(cases) != guide.images:
            raise ValueError(f"cases names {len(cases)} images, but the guide has {guide.images}.")
        names = [str(t) for t in self.targets or range(guide.targets)]
        layers: list[tuple[Tensor, list[Groups], None]] = []
        for layer, _, features in outputs:
            divisions, reason = fitting(self._groups, features.shape[1])
            if reason:
                self._hooks.leave_out(layer, reason)
            layers.append((beside(guide, features), divisions, None))
        found = score_layers(guide, layers, self._options)
        for (layer, call, _), (features, divisions, _), scored in zip(
            outputs, layers, found, strict=True
        ):
            size, channels = tuple(features.shape[2:]), features.shape[1]
            for groups, counts in zip(divisions, scored, strict=True):
                whole = groups == WHOLE_LAYER
                record = Record(layer, call, whole, list(cases), names, counts, size, channels)
                self._pending.append(record)
                if self.on_scored is not None:
                    self.on_scored(record, guide, features)


def check_groups(groups: Groups | Sequence[Groups]) -> tuple[Groups, ...]:
    """Return groups as a tuple of "layer" and at most one finer division.

    Raises:
        ValueError: for other values, and for two divisions, whose rows could not be told apart.
        TypeError: for other types.
    """
    listed = tuple(groups) if isinstance(groups, list | tuple) else (groups,)
    for value in listed:
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise TypeError(f'groups must hold "layer", "unit" or an int, got {value!r}.')
        if value not in ("layer", "unit") and (isinstance(value, str) or value < 1):
            raise ValueError(f'groups must hold "layer", "unit" or a positive int, got {value!r}.')
    finer = [value for value in listed if value != "layer"]
    if not listed or len(finer) > 1 or len(listed) - len(finer) > 1:
        raise ValueError(
            'groups must be "layer", "unit" or an int, or "layer" and one of the others, got '
            f"{groups!r}."
        )
    return listed
