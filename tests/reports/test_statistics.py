"""The statistics of a report: correlations, risk and coverage, comparisons."""

from __future__ import annotations

import math

import numpy as np
import pytest

for _name in ("matplotlib", "pandas", "pyarrow", "jinja2"):
    pytest.importorskip(_name)

from protoseg_fast.report import statistics  # noqa: E402


def _plain_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; equal values share the mean of their places."""
    return np.array([(values < v).sum() + ((values == v).sum() + 1) / 2 for v in values])


@pytest.mark.parametrize("digits", [1, 12], ids=["ties", "no ties"])
def test_correlations_are_the_textbook_s(digits: int) -> None:
    rng = np.random.default_rng(digits)
    x = rng.random(40).round(digits)
    y = (x + 0.3 * rng.random(40)).round(digits)
    assert statistics.pearson(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1])
    ranked = np.corrcoef(_plain_ranks(x), _plain_ranks(y))[0, 1]
    assert statistics.spearman(x, y) == pytest.approx(ranked)
    found = statistics.agreement(np.append(x, np.nan), np.append(y, 1.0))
    assert found.pairs == 40
    assert found.mae == pytest.approx(sum(abs(b - a) for a, b in zip(x, y, strict=True)) / 40)
    assert found.bias == pytest.approx(y.mean() - x.mean())


def test_correlation_of_too_little_is_undefined() -> None:
    assert math.isnan(statistics.pearson(np.array([0.0, 1.0]), np.array([0.0, 1.0])))
    assert math.isnan(statistics.pearson(np.full(9, 0.1), np.arange(9.0)))
    assert statistics.agreement(np.array([np.nan]), np.array([1.0])).pairs == 0


def test_aurc_is_its_definition() -> None:
    rng = np.random.default_rng(3)
    confidence, risk = rng.random(30), rng.random(30)
    order = sorted(range(30), key=lambda case: -confidence[case])
    selective = [sum(risk[case] for case in order[:k]) / k for k in range(1, 31)]
    assert statistics.aurc(confidence, risk) == pytest.approx(sum(selective) / 30)
    # By hand: the better case first, then both; and the other way round.
    assert statistics.aurc(np.array([2.0, 1.0]), np.array([0.2, 0.6])) == pytest.approx(0.3)
    assert statistics.aurc(np.array([1.0, 2.0]), np.array([0.2, 0.6])) == pytest.approx(0.5)
    assert math.isnan(statistics.aurc(np.empty(0), np.empty(0)))


def test_aurc_of_ties_is_the_mean_over_their_orders() -> None:
    rng = np.random.default_rng(4)
    confidence, risk = rng.integers(0, 4, 25).astype(float), rng.random(25)
    tied = statistics.aurc(confidence, risk)
    shuffled = rng.permutation(25)
    assert statistics.aurc(confidence[shuffled], risk[shuffled]) == pytest.approx(tied)
    broken = [statistics.aurc(confidence + 1e-6 * rng.random(25), risk) for _ in range(800)]
    assert np.mean(broken) == pytest.approx(tied, abs=4 * np.std(broken) / math.sqrt(800))
    assert statistics.aurc(np.ones(25), risk) == pytest.approx(risk.mean())


def test_estimator_lies_between_the_perfect_and_the_worst() -> None:
    rng = np.random.default_rng(5)
    dice = rng.random(50)
    perfect = statistics.estimator(dice, dice)
    assert perfect.aurc == pytest.approx(perfect.best_aurc)
    assert perfect.agreement.spearman == pytest.approx(1)
    worst = statistics.estimator(-dice, dice)
    assert perfect.aurc < perfect.random_aurc < worst.aurc
    assert perfect.random_aurc == pytest.approx(1 - dice.mean())


def test_better_ranking_only_where_there_is_one() -> None:
    rng = np.random.default_rng(6)
    dice = rng.random(60)
    good, poor, noise = dice + 0.05 * rng.random(60), dice + rng.random(60), rng.random(60)
    difference, low, high = statistics.better_ranking(good, noise, dice)
    assert 0 < low < difference < high
    expected = statistics.spearman(good, dice) - statistics.spearman(noise, dice)
    assert difference == pytest.approx(expected)
    assert statistics.better_ranking(noise, good, dice)[2] < 0
    assert statistics.better_ranking(poor, poor, dice) == (0, 0, 0)
    assert all(map(math.isnan, statistics.better_ranking(good[:9], noise[:9], dice[:9])))
    assert all(map(math.isnan, statistics.better_ranking(good, np.ones(60), dice)))
