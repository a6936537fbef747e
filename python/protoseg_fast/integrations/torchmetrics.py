"""The SA score as a torchmetrics metric. Needs torchmetrics: pip install torchmetrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics import Metric as TorchMetric

from protoseg_fast import _core
from protoseg_fast.counts import Counts
from protoseg_fast.guide import Empty, Guide, Interpolation, Metric, is_whole
from protoseg_fast.integrations._options import checked
from protoseg_fast.network.devices import beside, move, scoring_device

__all__ = ["SegmentationAbility"]


class SegmentationAbility(TorchMetric):
    """SA scores of one layer over a data set, batch by batch and over ranks.

    States are sums, so that batches and ranks merge exactly; 64 bits wide, which neither
    ``set_dtype`` nor ``to`` narrows. In a `torchmetrics.MetricCollection`, metrics that differ in
    nothing but ``average`` may share them, others never do. He et al. 2023, arXiv:2212.09206.

    Args:
        groups: groups of channels, as in `protoseg_fast.sa_counts`: 1 for the layer, its number of
            channels for every unit. A number, since states have a fixed shape.
        targets: T, the number of targets.
        average: "images" averages the scores of images, NaN skipped; "voxels" is the score of the
            counts summed over images whose prototypes are defined.
        metric, interpolation, align_corners: as in `protoseg_fast.sa_counts`.
        empty: what a score of empty masks is; see `protoseg_fast.Counts.score`.
        kwargs: for `torchmetrics.Metric`.

    Raises:
        TypeError: for groups or targets that are no int, or options as `protoseg_fast.sa_score`.
        ValueError: for another average, groups or targets below 1, or unknown options.

    Examples:
        >>> import torch
        >>> metric = SegmentationAbility(groups=8)
        >>> for _ in range(2):
        ...     pred = torch.rand(2, 1, 16, 16)
        ...     metric.update(torch.rand(2, 8, 16, 16), pred, pred > 0.7)
        >>> metric.compute().shape
        torch.Size([8, 1])
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    settings: Tensor
    tp: Tensor
    predicted: Tensor
    actual: Tensor
    score: Tensor
    count: Tensor

    def __init__(
        self,
        groups: int = 1,
        targets: int = 1,
        average: Literal["images", "voxels"] = "images",
        *,
        metric: Metric = "euclidean",
        interpolation: Interpolation = "linear",
        align_corners: bool = False,
        empty: Empty = "nan",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if average not in ("images", "voxels"):
            raise ValueError(f'average must be "images" or "voxels", got {average!r}.')
        for name, number in (("groups", groups), ("targets", targets)):
            if not is_whole(number):
                raise TypeError(
                    f"{name} must be an int, since states have a fixed shape, got {number!r}."
                )
        if groups < 1 or targets < 1:
            raise ValueError(f"groups and targets must be positive, got {groups} and {targets}.")
        self.options = checked(groups, metric, interpolation, align_corners, empty)
        self.groups, self.targets, self.average, self.empty = groups, targets, average, empty
        # A collection merges metrics whose states are equal after the first batch, of which
        # torchmetrics 1.2 compares the first one only.
        settings = torch.tensor([groups, targets, *_numbers(empty=empty, **self.options)])
        self.add_state("settings", default=settings, dist_reduce_fx=_same)
        zeros = torch.zeros(groups, targets, dtype=torch.int64)
        for name in ("tp", "predicted", "actual", "count"):
            self.add_state(name, default=zeros.clone(), dist_reduce_fx="sum")
        self.add_state("score", default=zeros.double(), dist_reduce_fx="sum")

    def update(
        self,
        features: Tensor,
        pred: Tensor,
        target: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> None:
        """Add a batch: features (N, C, *feature_size); the rest as `protoseg_fast.Guide` takes it.

        Scores are computed where the features are, if the engine runs there, else on the CPU.

        Raises:
            ValueError: for shapes or values that do not fit.
        """
        device = scoring_device(features)
        arrays = (None if x is None else move(x, device) for x in (pred, target, mask))
        guide = Guide(*arrays)
        guide.check()
        if guide.targets != self.targets:
            raise ValueError(f"pred must have {self.targets} targets, got {guide.targets}.")
        features = beside(guide, features.detach())
        counts = guide.sa_counts(features, groups=self.groups, **self.options)
        scores = counts.score(empty=self.empty)
        new = {
            name: getattr(counts, name) * counts.defined for name in ("tp", "predicted", "actual")
        }
        new |= {"score": scores.nan_to_num(0), "count": ~scores.isnan()}
        for name, values in new.items():
            # Not in place: states that were made under inference_mode refuse that outside of it.
            setattr(self, name, getattr(self, name) + move(values.sum(0), self.tp.device))

    def compute(self) -> Tensor:
        """Return the scores (G, T), float64; NaN where there are none."""
        if self.average == "images":
            return self.score / self.count  # 0 / 0 is NaN
        tp, predicted, actual = (x[None].cpu() for x in (self.tp, self.predicted, self.actual))
        voxels = predicted + actual  # at least as many as matter; no score asks for them
        counts = Counts(tp, predicted, actual, voxels, (self.count > 0)[None].cpu())
        result: Tensor = counts.score(empty=self.empty)[0]
        return result.to(self.tp.device)

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> Any:
        """Move states as torch says, but never to another dtype, which could not hold the sums."""

        def moved(tensor: Tensor) -> Tensor:
            found = fn(tensor)
            return found if found.dtype == tensor.dtype else tensor.to(found.device)

        return super()._apply(moved, *args, **kwargs)


def _numbers(*, metric: str, interpolation: str, align_corners: bool, empty: str) -> list[int]:
    """Options as numbers, which differ if the options do."""
    names = _core.option_names()
    named = {"metric": metric, "interpolation": interpolation, "empty": empty}
    return [*(names[option].index(name) for option, name in named.items()), int(align_corners)]


def _same(settings: Tensor) -> Tensor:
    """Reduce the settings (ranks, 6) of states that merge."""
    if (settings != settings[0]).any():
        raise ValueError("Metrics merge with metrics of the same options only.")
    return settings[0]
