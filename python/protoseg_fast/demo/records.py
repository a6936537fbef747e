"""The tidy table of scores: one row per slice, degradation, layer, unit, target, reference."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from protoseg_fast import Counts
from protoseg_fast.demo.data import TARGETS, Slices

#: What a score is measured against: the ground truth, or the network's own binarised output.
TRUTH, OUTPUT = "truth", "output"

#: ``layer`` of the rows that compare output > 0.5 with the truth directly: plain Dice, no
#: prototypes.
PREDICTION = "prediction"

#: ``unit`` of the rows that score a layer as a whole; other rows hold the unit's index.
WHOLE_LAYER = "layer"

CATEGORIES = ("degradation", "layer", "unit", "target", "reference")


class Records:
    """Collects counts batch by batch; ``scores`` and ``mean_sa`` make them data frames."""

    def __init__(self) -> None:
        self._scores: list[pd.DataFrame] = []
        self._mean_sa: list[pd.DataFrame] = []

    def add(
        self,
        degradation: str,
        number: Tensor,
        layer: str,
        reference: str,
        counts: Counts,
        *,
        whole: bool,
    ) -> None:
        """Add counts (N, G, T) of the slices ``number`` (N,)."""
        shape = tuple(counts.tp.shape)
        units = [WHOLE_LAYER] if whole else [str(unit) for unit in range(shape[1])]
        self._scores.append(
            _rows(
                shape,
                degradation=degradation,
                slice=number,
                layer=layer,
                reference=reference,
                unit=np.array(units, dtype=object)[None, :, None],
                tp=counts.tp,
                predicted=counts.predicted,
                actual=counts.actual,
                voxels=counts.voxels,
                sa=counts.dice,
            )
        )

    def add_prediction(self, degradation: str, part: Slices, pred: Tensor) -> None:
        """Add the plain Dice of pred > 0.5, (N, T, H, W), against the ground truth."""
        segmented = (pred > 0.5) & part.mask
        truth = part.target & part.mask
        tp, predicted, actual = (
            x.sum(dim=(2, 3))[:, None] for x in (segmented & truth, segmented, truth)
        )
        voxels = part.mask.sum(dim=(2, 3))[:, None]
        self._scores.append(
            _rows(
                tuple(tp.shape),
                degradation=degradation,
                slice=part.number,
                layer=PREDICTION,
                reference=TRUTH,
                unit=WHOLE_LAYER,
                tp=tp,
                predicted=predicted,
                actual=actual,
                voxels=voxels,
                sa=2 * tp.double() / (predicted + actual),
            )
        )

    def add_mean_sa(self, degradation: str, number: Tensor, value: Tensor, count: Tensor) -> None:
        """Add the mean SA (N, T) of the slices ``number`` (N,) and how many layers it holds."""
        self._mean_sa.append(
            _rows(
                (value.shape[0], 1, value.shape[1]),
                degradation=degradation,
                slice=number,
                mean_sa=value[:, None],
                layers=count[:, None],
            )
        )

    def scores(self, layers: list[str]) -> pd.DataFrame:
        """All counts and scores; ``layer`` is a categorical in the order of ``layers``."""
        frame = pd.concat(self._scores, ignore_index=True)
        order = {"layer": [*layers, PREDICTION]}
        for column in CATEGORIES:
            values = order.get(column, list(frame[column].unique()))
            frame[column] = pd.Categorical(frame[column], categories=values)
        columns = ["slice", "degradation", "layer", "unit", "target", "reference"]
        return frame[[*columns, "tp", "predicted", "actual", "voxels", "sa"]]

    def mean_sa(self) -> pd.DataFrame:
        """slice, degradation, target, mean_sa, layers."""
        frame = pd.concat(self._mean_sa, ignore_index=True)
        return frame[["slice", "degradation", "target", "mean_sa", "layers"]]


def _rows(shape: tuple[int, ...], *, slice: Tensor, **columns: object) -> pd.DataFrame:
    """A row for each entry of ``shape`` (N, G, T); columns are broadcast to it."""
    columns["slice"] = slice.numpy()[:, None, None]
    columns["target"] = np.array(TARGETS, dtype=object)
    return pd.DataFrame({name: _spread(values, shape) for name, values in columns.items()})


def _spread(values: object, shape: tuple[int, ...]) -> NDArray[np.generic]:
    array = values.numpy() if isinstance(values, Tensor) else np.asarray(values)
    return np.broadcast_to(array, shape).ravel()
