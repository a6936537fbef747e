"""The SA score as a MONAI metric. Needs MONAI: pip install monai."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.metrics import CumulativeIterationMetric
from monai.metrics.utils import do_metric_reduction
from torch import Tensor

from protoseg_fast.guide import Empty, Groups, Guide, Interpolation, Metric
from protoseg_fast.integrations._options import checked
from protoseg_fast.network.devices import beside, move, scoring_device
from protoseg_fast.network.hooks import plain

__all__ = ["SegmentationAbilityMetric"]

TensorOrList = Tensor | Sequence[Tensor]
"""A batch, or its images one by one."""


class SegmentationAbilityMetric(CumulativeIterationMetric):
    """SA scores of one layer, with MONAI's interface: call, ``aggregate``, ``reset``.

    He et al. 2023, arXiv:2212.09206.

    Args:
        groups: as in `protoseg_fast.sa_counts`: "layer", "unit" or a number.
        reduction: MONAI's, over images and channels: "none", "mean", "mean_batch", ….
        get_not_nans: whether ``aggregate`` also returns how many scores it holds.
        metric, interpolation, align_corners: as in `protoseg_fast.sa_counts`.
        empty: what a score of empty masks is; see `protoseg_fast.Counts.score`.

    Raises:
        TypeError, ValueError: for options as `protoseg_fast.sa_score`.

    Examples:
        >>> import torch
        >>> metric = SegmentationAbilityMetric(groups="unit", reduction="mean_batch")
        >>> pred = torch.rand(2, 1, 16, 16)
        >>> metric(y_pred=pred, y=pred > 0.7, features=torch.rand(2, 8, 16, 16)).shape
        torch.Size([2, 8])
        >>> metric.aggregate().shape
        torch.Size([8])
    """

    def __init__(
        self,
        groups: Groups = "layer",
        reduction: str = "mean",
        get_not_nans: bool = False,
        *,
        metric: Metric = "euclidean",
        interpolation: Interpolation = "linear",
        align_corners: bool = False,
        empty: Empty = "nan",
    ) -> None:
        super().__init__()
        self.options = checked(groups, metric, interpolation, align_corners, empty)
        self.groups, self.empty = groups, empty
        self.reduction, self.get_not_nans = reduction, get_not_nans

    def _compute_tensor(
        self,
        y_pred: Tensor,
        y: Tensor | None = None,
        *,
        features: TensorOrList,
        mask: TensorOrList | None = None,
    ) -> Tensor:
        """Score a batch.

        Args:
            y_pred: (N, T, *size) probabilities.
            y: (N, T, *size) binary ground truth; None: y_pred > 0.5.
            features: (N, C, *feature_size).
            mask: (N, 1, *size), the voxels that count.

        Each may also be a list of N images, without the first axis; see `_compute_list`.

        Returns:
            (N, G * T) float32, group by group, where the features are if the engine runs there,
            else on the CPU.

        Raises:
            ValueError: for shapes or values that do not fit.
        """
        if not (isinstance(features, Tensor) and isinstance(mask, Tensor | None)):
            return self._compute_list(y_pred, y, features=features, mask=mask)
        features = plain(features)
        device = scoring_device(features)
        arrays = (None if x is None else move(plain(x), device) for x in (y_pred, y, mask))
        guide = Guide(*arrays)
        guide.check()
        scores: Tensor = guide.sa_score(
            beside(guide, features), groups=self.groups, empty=self.empty, **self.options
        )
        return scores.flatten(1).float()

    def _compute_list(
        self,
        y_pred: TensorOrList,
        y: TensorOrList | None = None,
        *,
        features: TensorOrList,
        mask: TensorOrList | None = None,
    ) -> Tensor:
        """The same for lists of images (T, *size), decollated, which may differ in size. What is
        no list is a batch of as many images.

        Raises:
            TypeError: for anything else.
            ValueError: if there are no images, or not as many of each.
        """
        given = {"y_pred": y_pred, "y": y, "features": features, "mask": mask}
        images = {name: _images(name, x) for name, x in given.items() if x is not None}
        numbers = {name: len(x) for name, x in images.items()}
        if set(numbers.values()) == {0} or len(set(numbers.values())) > 1:
            listed = ", ".join(f"{number} of {name}" for name, number in numbers.items())
            raise ValueError(f"There must be images, as many of each, got {listed}.")
        rows = []
        for one in zip(*images.values(), strict=True):
            pred, *others = (x[None] for x in one)
            rows.append(
                self._compute_tensor(pred, **dict(zip(list(images)[1:], others, strict=True)))
            )
        return torch.cat(rows)

    def aggregate(self, reduction: str | None = None) -> Any:
        """Return the reduced scores of all calls, with ``get_not_nans`` also their number."""
        data = self.get_buffer()
        if not isinstance(data, Tensor):
            raise ValueError("There is nothing to aggregate: call the metric first.")
        reduced, count = do_metric_reduction(data.clone(), reduction or self.reduction)
        return (reduced, count) if self.get_not_nans else reduced


def _images(name: str, given: TensorOrList) -> Sequence[Tensor]:
    """Return the images of a list or batch."""
    for image in given if isinstance(given, list | tuple) else [given]:
        if not isinstance(image, Tensor):
            raise TypeError(
                f"{name} must be a tensor or a list of tensors, got {type(image).__name__}."
            )
    return list(given)
