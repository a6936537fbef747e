"""What the table, the figures and the page say, computed once from the tidy scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from protoseg_fast.demo.data import TARGETS
from protoseg_fast.demo.degrade import CLEAN, Degradation
from protoseg_fast.demo.records import OUTPUT, PREDICTION, TRUTH, WHOLE_LAYER
from protoseg_fast.demo.score import Layer, Sweep

#: A unit "can segment the target" when its mean SA over the held-out slices reaches this.
GOOD_SA = 0.5


@dataclass(frozen=True)
class LayerSummary:
    """One layer and one target over the clean held-out slices.

    Attributes:
        layer: the layer.
        target: name of the target.
        truth: SA of the layer as a whole against the ground truth: mean over the slices.
        spread: its 10th and 90th percentile over the slices.
        output: the same mean with the network's own binarised output as the reference.
        unit_sa: (units,) mean SA of each unit against the ground truth, NaN where undefined.
    """

    layer: Layer
    target: str
    truth: float
    spread: tuple[float, float]
    output: float
    unit_sa: NDArray[np.float64]

    @property
    def best(self) -> int:
        """Index of the unit with the highest mean SA."""
        return int(np.nanargmax(self.unit_sa))

    @property
    def worst(self) -> int:
        """Index of the unit with the lowest mean SA."""
        return int(np.nanargmin(self.unit_sa))

    @property
    def good_share(self) -> float:
        """Share of units whose mean SA is at least GOOD_SA."""
        return float(np.mean(self.unit_sa >= GOOD_SA))


@dataclass(frozen=True)
class Correlation:
    """How mean SA (no ground truth) follows Dice over ``points`` slices."""

    points: int
    pearson: float
    spearman: float


@dataclass(frozen=True)
class Quality:
    """Mean Dice and mean SA of one degradation, by target."""

    label: str
    dice: dict[str, float]
    mean_sa: dict[str, float]


@dataclass(frozen=True)
class Summary:
    """Attributes:
    layers: one entry per layer and target, layers in the order they run.
    baseline: per target, the Dice of calling the whole brain the target.
    dice: per target, mean Dice of the network's output on the clean slices.
    quality: one row per slice, degradation and target: kind, severity, mean_sa, dice.
    by_degradation: averages over the slices, one entry per degradation.
    correlation: per target, over every slice and degradation.
    by_kind: per kind of degradation and target, over that kind alone.
    """

    layers: dict[str, list[LayerSummary]]
    baseline: dict[str, float]
    dice: dict[str, float]
    quality: pd.DataFrame
    by_degradation: list[Quality]
    correlation: dict[str, Correlation]
    by_kind: dict[str, dict[str, Correlation]]


def summarise(sweep: Sweep, degradations: Sequence[Degradation]) -> Summary:
    """Summarise a sweep over ``degradations``, the first of which leaves the images as they are."""
    clean = sweep.scores[sweep.scores.degradation == CLEAN.name]
    quality = _quality(sweep, degradations)
    prediction = clean[clean.layer == PREDICTION]
    means = quality.groupby(["degradation", "target"])[["dice", "mean_sa"]].mean()
    return Summary(
        layers={target: _layers(sweep.layers, clean[clean.target == target]) for target in TARGETS},
        baseline={
            target: _whole_brain_dice(prediction[prediction.target == target]) for target in TARGETS
        },
        dice={
            target: float(prediction[prediction.target == target].sa.mean()) for target in TARGETS
        },
        quality=quality,
        by_degradation=[
            Quality(
                label=degradation.label,
                dice={t: float(means.dice[degradation.name, t]) for t in TARGETS},
                mean_sa={t: float(means.mean_sa[degradation.name, t]) for t in TARGETS},
            )
            for degradation in degradations
        ],
        correlation=_correlations(quality),
        by_kind={
            str(kind): _correlations(rows) for kind, rows in quality.groupby("kind", sort=False)
        },
    )


def _layers(layers: Sequence[Layer], clean: pd.DataFrame) -> list[LayerSummary]:
    """The layers' summaries for one target; ``clean`` holds that target's rows."""
    target = str(clean.target.iloc[0])
    whole = clean[clean.unit == WHOLE_LAYER]
    units = clean[(clean.unit != WHOLE_LAYER) & (clean.reference == TRUTH)]
    unit_means = units.groupby(["layer", "unit"], observed=True).sa.mean()
    summaries = []
    for layer in layers:
        rows = whole[whole.layer == layer.name]
        truth = rows[rows.reference == TRUTH].sa
        by_unit = unit_means[layer.name]
        summaries.append(
            LayerSummary(
                layer=layer,
                target=target,
                truth=float(truth.mean()),
                spread=(float(truth.quantile(0.1)), float(truth.quantile(0.9))),
                output=float(rows[rows.reference == OUTPUT].sa.mean()),
                unit_sa=by_unit.loc[[str(unit) for unit in range(layer.units)]].to_numpy(float),
            )
        )
    return summaries


def _quality(sweep: Sweep, degradations: Sequence[Degradation]) -> pd.DataFrame:
    """Mean SA beside Dice: slice, degradation, target, kind, severity, mean_sa, dice."""
    prediction = sweep.scores[sweep.scores.layer == PREDICTION]
    dice = prediction[["slice", "degradation", "target", "sa"]].rename(columns={"sa": "dice"})
    keys = ["slice", "degradation", "target"]
    quality = sweep.mean_sa.merge(dice.astype({"degradation": str, "target": str}), on=keys)
    by_name = {degradation.name: degradation for degradation in degradations}
    quality["kind"] = [by_name[name].kind for name in quality.degradation]
    quality["severity"] = [by_name[name].severity for name in quality.degradation]
    return quality


def _whole_brain_dice(prediction: pd.DataFrame) -> float:
    """Mean Dice of a map that calls every voxel of the mask the target."""
    return float((2 * prediction.actual / (prediction.actual + prediction.voxels)).mean())


def _correlations(quality: pd.DataFrame) -> dict[str, Correlation]:
    return {target: _correlation(quality[quality.target == target]) for target in TARGETS}


def _correlation(quality: pd.DataFrame) -> Correlation:
    pair = quality[["mean_sa", "dice"]].dropna()
    ranks = pair.rank()
    return Correlation(
        points=len(pair),
        pearson=float(pair.corr().iloc[0, 1]),
        spearman=float(ranks.corr().iloc[0, 1]),
    )
