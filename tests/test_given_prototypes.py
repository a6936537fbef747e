"""Maps at given prototypes: parts of a volume, at those of the whole, add up to the whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

import protoseg_fast as psf
from problems import Problem, problems

torch = pytest.importorskip("torch")


@given(problems())
def test_given_their_own_prototypes_maps_stay_the_same(problem: Problem) -> None:
    guide = psf.Guide(*problem.guide)
    own = guide.prototypes(problem.features, **problem.resize)
    options = problem.options | problem.resize
    expected = guide.segment(problem.features, **options)
    found = guide.segment(problem.features, own, **options)
    # prototypes are relative to a channel's first voxel inside, and rounded once here
    close = np.asarray(guide.probability(problem.features, **options)) - 0.5
    differ = np.asarray(found) != np.asarray(expected)
    assert (np.abs(close[differ]) < 1e-6).all()
    counts = guide.sa_counts(problem.features, own, **options)
    valid = np.ones(found.shape[3:], bool) if problem.mask is None else problem.mask[:, None] > 0
    axes = tuple(range(3, found.ndim))
    np.testing.assert_array_equal(counts.predicted, (np.asarray(found) & valid).sum(axis=axes))
    target = problem.target[:, None] > 0
    np.testing.assert_array_equal(counts.tp, (np.asarray(found) & valid & target).sum(axis=axes))
    both = guide.sa_counts_both(problem.features, own, **options)
    np.testing.assert_array_equal(both.target.tp, counts.tp)


@pytest.mark.parametrize("groups", ["layer", "unit", 2])
def test_halves_add_up(groups) -> None:
    rng = np.random.default_rng(0)
    pred, target = rng.random((2, 3, 20, 16)), rng.random((2, 3, 20, 16)) < 0.3
    features = rng.normal(size=(2, 6, 20, 16)).astype(np.float32)
    whole = psf.Guide(pred, target)
    halves = [
        (psf.Guide(pred[:, :, rows], target[:, :, rows]), features[:, :, rows])
        for rows in (slice(0, 7), slice(7, 20))
    ]
    merged = sum(guide.prototypes(part) for guide, part in halves)
    found = sum(guide.sa_counts(part, merged, groups=groups) for guide, part in halves)
    expected = whole.sa_counts(features, groups=groups)
    np.testing.assert_array_equal(found.tp, expected.tp)
    np.testing.assert_array_equal(found.predicted, expected.predicted)
    np.testing.assert_array_equal(found.voxels, expected.voxels)


def test_undefined_and_equal_prototypes() -> None:
    features = np.random.default_rng(0).normal(size=(1, 2, 8, 8)).astype(np.float32)
    guide = psf.Guide(np.full((1, 1, 8, 8), 0.5), features[:, :1] > 0)
    one = np.ones((1, 1))
    nan = psf.Prototypes(np.array([[[np.nan, 0.5]]]), np.array([[[0.0, 0.5]]]), one, one)
    counts = guide.sa_counts(features, nan, groups="unit")
    assert counts.defined.ravel().tolist() == [False, True]
    assert counts.predicted.ravel().tolist() == [0, 0]


def test_wrong_prototypes() -> None:
    features = np.zeros((1, 2, 8, 8), np.float32)
    guide = psf.Guide(np.full((1, 1, 8, 8), 0.5))
    other = guide.prototypes(features[:, :1])
    for call in (guide.sa_counts, guide.sa_counts_both, guide.segment):
        with pytest.raises(ValueError, match=r"shape \(N, T, C\)"):
            call(features, other)
        with pytest.raises(TypeError, match=r"protoseg_fast\.Prototypes"):
            call(features, (1, 2))
