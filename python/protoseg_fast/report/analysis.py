"""What the page says, computed once from a `Cohort`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from protoseg_fast.network.records import OUTPUT, TARGET
from protoseg_fast.report import statistics
from protoseg_fast.report.load import Cohort
from protoseg_fast.report.statistics import Agreement, Estimator

__all__ = ["ACTIVE", "LayerResult", "TargetResult", "analyse", "dead_units", "quality"]

#: A unit is active when its mean SA over the cases is above this.
ACTIVE = 0.5

Values = NDArray[np.float64]


@dataclass(frozen=True)
class LayerResult:
    """One layer and one target over the cohort. NaN where nothing is known.

    Attributes:
        label: its name, and which call of it where there are several.
        size: spatial extents, such as "32x32".
        channels: of the layer.
        image: whether it is the image itself.
        truth, output: SA of the whole layer against the truth and against the network's output,
            mean over cases.
        cases: how many cases have a score of the layer against ``TargetResult.reference``.
        spread: 10th and 90th percentile of those scores.
        unit_sa: (units,) mean SA of each unit.
        units: (units,) their numbers.
        dead: how many units are dead (for no target alive).
    """

    label: str
    size: str
    channels: int
    image: bool
    truth: float
    output: float
    cases: int
    spread: tuple[float, float]
    unit_sa: Values
    units: NDArray[np.int64]
    dead: int

    @property
    def score(self) -> float:
        """SA against the truth, or against the output where there is none."""
        return self.truth if np.isfinite(self.truth) else self.output

    @property
    def best(self) -> int | None:
        """Position of the unit with the highest mean SA; None if none has a score."""
        known = np.isfinite(self.unit_sa)
        return int(np.nanargmax(self.unit_sa)) if known.any() else None

    @property
    def best_unit(self) -> int | None:
        """Number of that unit."""
        return None if self.best is None else int(self.units[self.best])

    @property
    def best_sa(self) -> float:
        """Its mean SA."""
        return float("nan") if self.best is None else float(self.unit_sa[self.best])

    @property
    def active(self) -> float:
        """Share of the units whose mean SA is above ACTIVE; NaN without units."""
        return float(np.mean(self.unit_sa > ACTIVE)) if len(self.unit_sa) else float("nan")


@dataclass(frozen=True)
class TargetResult:
    """One target over the cohort.

    Attributes:
        name: the target.
        reference: what scores are shown against, "target" (the truth) or "output".
        layers: in the order they ran.
        layer_agreement: of the layers' scores against truth and output, over cases and layers.
        unit_agreement: the same of the units' mean scores.
        quality: (cases) case, dice, mean_sa, confidence, foreground.
        mean_sa, confidence: how the two estimates follow Dice.
        better: `statistics.better_ranking` of mean SA over Soft Dice Confidence.
    """

    name: str
    reference: str
    layers: list[LayerResult]
    layer_agreement: Agreement
    unit_agreement: Agreement
    quality: pd.DataFrame
    mean_sa: Estimator
    confidence: Estimator
    better: tuple[float, float, float]

    @property
    def has_dice(self) -> bool:
        """Whether Dice is known for any case."""
        return bool(self.quality["dice"].notna().any())


def analyse(cohort: Cohort) -> list[TargetResult]:
    """Return the results of every target."""
    dead = dead_units(cohort)
    dead_counts = dead.groupby("layer").size().reindex(range(len(cohort.layers)), fill_value=0)
    all_quality = quality(cohort)
    return [
        _target(cohort, target, dead_counts.to_numpy(), all_quality) for target in cohort.targets
    ]


def dead_units(cohort: Cohort) -> pd.DataFrame:
    """Return the units that segment nothing in any case, for no target: layer (index), group.

    Such a unit has equal prototypes: it is constant. Units whose scores are undefined throughout
    are not counted.
    """
    units = cohort.units.assign(known=cohort.units["scored"] > 0)
    seen = units.groupby(["layer", "group"], sort=True)[["alive", "known"]].any()
    return seen[~seen["alive"] & seen["known"]].reset_index()[["layer", "group"]]


def quality(cohort: Cohort) -> pd.DataFrame:
    """Return one row per case (index) and target: dice, mean_sa, confidence, foreground.

    mean_sa is the paper's estimate: the mean over layers, the image left out, of the SA against the
    network's own output, NaN skipped. confidence is Soft Dice Confidence, 2 Σ p ŷ / (Σ p + Σ ŷ)
    with the probability p and the output ŷ (Borges, Pacheco and Silva, arXiv:2402.10665).
    """
    rows = cohort.layer_scores
    image = np.flatnonzero(cohort.layers["image"])
    rows = rows[(rows["reference"] == OUTPUT) & ~rows["layer"].isin(image)]
    means = rows.groupby(["case", "target"], observed=True)["sa"].mean()
    means = means.rename("mean_sa").reset_index().astype({"target": str})
    return cohort.outputs.merge(means, on=["case", "target"], how="left")


def _target(
    cohort: Cohort, target: str, dead: NDArray[np.int64], all_quality: pd.DataFrame
) -> TargetResult:
    rows = cohort.layer_scores[cohort.layer_scores["target"] == target]
    units = cohort.units[cohort.units["target"] == target]
    references = {
        name: rows[rows["reference"] == name].set_index(["case", "layer"])["sa"]
        for name in (TARGET, OUTPUT)
    }
    unit_means = {
        name: units[units["reference"] == name].set_index(["layer", "group"])["sa"].sort_index()
        for name in (TARGET, OUTPUT)
    }
    some_truth = len(references[TARGET]) or len(unit_means[TARGET])
    reference = TARGET if some_truth else OUTPUT
    mine = all_quality[all_quality["target"] == target].reset_index(drop=True)
    dice, mean_sa, confidence = (
        mine[name].to_numpy(float) for name in ("dice", "mean_sa", "confidence")
    )
    return TargetResult(
        name=target,
        reference=reference,
        layers=_layers(cohort, references, unit_means[reference], reference, dead),
        layer_agreement=_agreement(references),
        unit_agreement=_agreement(unit_means),
        quality=mine,
        mean_sa=statistics.estimator(mean_sa, dice),
        confidence=statistics.estimator(confidence, dice),
        better=statistics.better_ranking(mean_sa, confidence, dice),
    )


def _layers(
    cohort: Cohort,
    references: dict[str, pd.Series],
    units: pd.Series,
    reference: str,
    dead: NDArray[np.int64],
) -> list[LayerResult]:
    means = {name: values.groupby("layer").mean().to_dict() for name, values in references.items()}
    shown = references[reference].groupby("layer")
    counts = shown.count().to_dict()
    spread = shown.quantile([0.1, 0.9]).unstack() if len(references[reference]) else pd.DataFrame()
    by_layer = dict(iter(units.groupby(level="layer")))
    nan = float("nan")
    results = []
    for index, layer in enumerate(cohort.layers.itertuples(index=False)):
        of_units = by_layer.get(index)
        low, high = spread.loc[index] if index in spread.index else (nan, nan)
        results.append(
            LayerResult(
                label=str(layer.label),
                size=str(layer.feature_size),
                channels=int(layer.channels),
                image=bool(layer.image),
                truth=float(means[TARGET].get(index, nan)),
                output=float(means[OUTPUT].get(index, nan)),
                cases=int(counts.get(index, 0)),
                spread=(float(low), float(high)),
                unit_sa=np.empty(0) if of_units is None else of_units.to_numpy(float),
                units=np.empty(0, np.int64)
                if of_units is None
                else of_units.index.get_level_values("group").to_numpy(np.int64),
                dead=int(dead[index]),
            )
        )
    return results


def _agreement(values: dict[str, pd.Series]) -> Agreement:
    """Compare scores against truth and output where both exist."""
    both = pd.concat({name: values[name] for name in (TARGET, OUTPUT)}, axis=1, join="inner")
    return statistics.agreement(both[TARGET].to_numpy(float), both[OUTPUT].to_numpy(float))
