"""Statistics of a report, each a function of arrays: correlation, AURC, agreement, intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = [
    "Agreement",
    "Estimator",
    "agreement",
    "aurc",
    "better_ranking",
    "estimator",
    "pearson",
    "risk_coverage",
    "spearman",
]

Values = NDArray[np.float64]

#: Cases drawn anew for the interval of a difference.
RESAMPLES = 500
#: With fewer cases than this, neither correlations nor intervals are given.
FEWEST = 3


@dataclass(frozen=True)
class Agreement:
    """How two measurements of the same things agree, over the pairs where both are known.

    Attributes:
        pairs: how many.
        pearson, spearman: correlation; NaN below three pairs or where one is constant.
        mae: mean absolute difference.
        bias: mean of the second minus the first.
    """

    pairs: int
    pearson: float
    spearman: float
    mae: float
    bias: float


@dataclass(frozen=True)
class Estimator:
    """How an estimate made without ground truth follows Dice.

    Attributes:
        agreement: of Dice (first) and the estimate (second).
        aurc: area under the risk-coverage curve of the estimate; lower is better.
        best_aurc: of an estimate that ranks the cases as Dice does.
        random_aurc: of a random ranking, on average: the mean risk.
    """

    agreement: Agreement
    aurc: float
    best_aurc: float
    random_aurc: float


def pearson(x: Values, y: Values) -> float:
    """Return the linear correlation of (n,) and (n,) finite values.

    NaN below three values, or where one side is constant up to rounding.
    """
    if len(x) < FEWEST:
        return float("nan")
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    tiny = 1e-12 * len(x)
    return float(np.clip(x @ y / scale, -1, 1)) if scale > tiny else float("nan")


def spearman(x: Values, y: Values) -> float:
    """Return the correlation of the ranks of (n,) and (n,) finite values; ties share their mean."""
    ranks = pd.DataFrame({"x": x, "y": y}).rank()
    return pearson(ranks["x"].to_numpy(), ranks["y"].to_numpy())


def agreement(first: Values, second: Values) -> Agreement:
    """Compare (n,) and (n,) values; pairs with NaN are left out."""
    both = np.isfinite(first) & np.isfinite(second)
    x, y = first[both], second[both]
    if not len(x):
        return Agreement(0, *4 * (float("nan"),))
    difference = y - x
    return Agreement(
        pairs=len(x),
        pearson=pearson(x, y),
        spearman=spearman(x, y),
        mae=float(np.abs(difference).mean()),
        bias=float(difference.mean()),
    )


def risk_coverage(confidence: Values, risk: Values) -> Values:
    """Return the selective risk (n,): entry k is the mean risk of the k + 1 most confident cases.

    Cases of equal confidence count with the mean of their risks, so that the order in which they
    come makes no difference.

    Args:
        confidence: (n,), finite; higher is more confident.
        risk: (n,), finite, here 1 − Dice.
    """
    shared = pd.Series(risk).groupby(confidence).transform("mean").to_numpy()
    order = np.argsort(-confidence, kind="stable")
    curve: Values = np.cumsum(shared[order]) / np.arange(1, len(risk) + 1)
    return curve


def aurc(confidence: Values, risk: Values) -> float:
    """Return the area under the risk-coverage curve: the mean selective risk over all coverages.

    Accept the most confident k of n cases: coverage k / n, selective risk their mean risk. AURC is
    its mean over k = 1, …, n. Geifman, Uziel and El-Yaniv, "Bias-Reduced Uncertainty Estimation for
    Deep Neural Classifiers", ICLR 2019, with the risk 1 − Dice in place of the 0/1 error.

    Args:
        confidence, risk: as in `risk_coverage`.

    Returns:
        Between the AURC of a perfect ranking and that of the worst; NaN without cases.
    """
    return float(risk_coverage(confidence, risk).mean()) if len(risk) else float("nan")


def estimator(estimate: Values, dice: Values) -> Estimator:
    """Judge an estimate (n,) by Dice (n,); cases where either is NaN are left out."""
    both = np.isfinite(estimate) & np.isfinite(dice)
    risk = 1 - dice[both]
    return Estimator(
        agreement=agreement(dice, estimate),
        aurc=aurc(estimate[both], risk),
        best_aurc=aurc(-risk, risk),
        random_aurc=float(risk.mean()) if len(risk) else float("nan"),
    )


def better_ranking(first: Values, second: Values, dice: Values) -> tuple[float, float, float]:
    """Compare two estimates by how well each ranks the cases as Dice does.

    Args:
        first, second, dice: (n,); cases where one is NaN are left out.

    Returns:
        Spearman's ρ of the first with Dice minus that of the second, and the ends of its 95 %
        interval: percentiles of the paired bootstrap over cases (Efron and Tibshirani 1993), with a
        fixed seed. NaN below ten cases, where such an interval means little.
    """
    all_known = np.isfinite(first) & np.isfinite(second) & np.isfinite(dice)
    columns = [x[all_known] for x in (first, second, dice)]
    count = len(columns[0])
    if count < 10:
        return (float("nan"),) * 3
    difference = spearman(columns[0], columns[2]) - spearman(columns[1], columns[2])
    drawn = np.random.default_rng(0).integers(count, size=(count, RESAMPLES))
    ranks = [pd.DataFrame(x[drawn]).rank().to_numpy() for x in columns]
    centred = [rank - rank.mean(0) for rank in ranks]
    norms = [np.sqrt((rank * rank).sum(0)) for rank in centred]
    with np.errstate(invalid="ignore", divide="ignore"):
        rho = [
            (c * centred[2]).sum(0) / (n * norms[2]) for c, n in zip(centred, norms, strict=True)
        ]
    differences = rho[0] - rho[1]
    differences = differences[np.isfinite(differences)]
    if not len(differences) or not np.isfinite(difference):
        return (float("nan"),) * 3
    low, high = np.percentile(differences, [2.5, 97.5])
    return difference, float(low), float(high)
