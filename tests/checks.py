"""The comparison every decision goes through: see "How tests judge a decision" in CONTRIBUTING."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import protoseg_fast as psf
from problems import Problem, rounding_band
from protoseg_fast import reference


def group_count(problem: Problem) -> int:
    channels = problem.features.shape[1]
    groups = problem.options.get("groups", 1)
    return {"layer": 1, "unit": channels}.get(groups, groups)


def check(problem: Problem, make_guide: Callable[..., Any] = psf.Guide) -> None:
    """Prototypes within tolerance; then maps and counts exactly, at the boundary returned."""
    guide = make_guide(*problem.guide)
    size, f = problem.pred.shape[2:], problem.exact

    found = guide.prototypes(problem.features, **problem.resize)
    boundary = reference.Boundary(np.asarray(found.positive), np.asarray(found.negative))
    exact = reference.prototypes(f, problem.pred, problem.mask, **problem.resize)
    scale = np.abs(f).reshape(*f.shape[:2], -1).max(axis=2)[:, None]
    for a, b in zip(boundary, exact, strict=True):
        assert ((np.abs(a - b) <= problem.tolerance * scale) | (np.isnan(a) & np.isnan(b))).all()

    options = problem.options | problem.resize
    margin = reference.boundary_margin(f, boundary, size, **options)
    band = rounding_band(problem, boundary, group_count(problem))
    doubtful = np.abs(margin) <= band.reshape(*band.shape, *(1,) * len(size))
    directionless = without_direction(problem, margin.shape)
    if options["metric"] == "cosine":
        doubtful |= directionless
    found_map = np.asarray(guide.segment(problem.features, **options))
    assert found_map.dtype == bool
    np.testing.assert_array_equal(found_map[~doubtful], (margin > 0)[~doubtful])

    counts = guide.sa_counts(problem.features, **options)
    everywhere = np.ones((len(f), 1, *size), bool)
    valid = (everywhere if problem.mask is None else problem.mask > 0)[:, None]
    target = problem.target[:, None] > 0
    axes = tuple(range(3, margin.ndim))
    # exactly the voxels of the map: one decision, however it is asked for
    np.testing.assert_array_equal(counts.predicted, (found_map & valid).sum(axis=axes))
    np.testing.assert_array_equal(counts.tp, (found_map & valid & target).sum(axis=axes))
    actual = np.broadcast_to((target & valid).sum(axis=axes), counts.tp.shape)
    np.testing.assert_array_equal(counts.actual, actual)
    np.testing.assert_array_equal(counts.voxels[:, :, 0], valid.sum(axis=axes)[:, :, 0])

    probability = np.asarray(guide.probability(problem.features, **options))
    expected = reference.probability(f, problem.pred, problem.mask, **options)
    if problem.options["metric"] == "euclidean":
        # What prototypes within their tolerance can do to a margin, through the sigmoid's slope.
        reach = 2 * scale * (2 * scale) * 4 * problem.tolerance
        slack = 1e-5 + reach.max() * f.shape[1] / 4
        np.testing.assert_allclose(probability, expected, rtol=0, atol=min(slack, 1))
        np.testing.assert_allclose(
            probability, reference_sigmoid(margin), rtol=0, atol=1e-5, equal_nan=True
        )
    else:
        # A projection of nearly equal unit vectors: compare at the boundary returned.
        known = ~directionless
        np.testing.assert_allclose(
            probability[known], reference_sigmoid(margin)[known], rtol=0, atol=1e-5
        )


def without_direction(problem: Problem, shape: tuple[int, ...]) -> np.ndarray:
    """Where interpolation leaves only rounding of a group's features, so it does of their angle."""
    f = reference.resize(problem.exact, shape[3:], **problem.resize)
    norm = np.abs(f).reshape(*shape[:2], 1, -1, *shape[3:]).max(axis=3)
    return np.broadcast_to((norm > 0) & (norm < 1e-10 * np.abs(f).max()), shape)


def reference_sigmoid(margin: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(margin, -700, 700)))
