"""The engine against the float64 specification, on random problems of every kind."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

import protoseg_fast as psf
from problems import DTYPES, Problem, cast, feature_data, make_mask, problems, rounding_band
from protoseg_fast import reference


def group_count(problem: Problem) -> int:
    channels = problem.features.shape[1]
    groups = problem.options.get("groups", 1)
    return {"layer": 1, "unit": channels}.get(groups, groups)


def check(problem: Problem) -> None:
    """Prototypes within tolerance; then maps and counts exactly, at the boundary returned."""
    guide = psf.Guide(*problem.guide)
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
        np.testing.assert_allclose(probability, reference_sigmoid(margin), rtol=0, atol=1e-5)


def reference_sigmoid(margin: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(margin, -700, 700)))


@given(problems(resized=False))
def test_same_size(problem: Problem) -> None:
    check(problem)


@given(problems(resized=True))
def test_resized(problem: Problem) -> None:
    check(problem)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("groups", [1, 4, "unit"])
def test_every_dtype_and_isa(isa: str, dtype: str, groups: int | str, metric: str) -> None:
    rng = np.random.default_rng(3)
    size = (61, 67)
    features = cast(feature_data(rng, "normal", 2, 8, size), dtype)
    pred = rng.random((2, 2, *size), dtype=np.float32)
    mask = make_mask(rng, "weights", 2, size)
    options = {"groups": groups, "metric": metric}
    check(Problem(features, pred, pred > 0.6, mask, options))


@pytest.mark.parametrize("voxels", [1, 31, 32, 33, 63, 64, 65, 1023, 1024, 1025, 65535, 65537])
def test_sizes_around_lanes_blocks_and_segments(voxels: int, dtype: str) -> None:
    rng = np.random.default_rng(voxels)
    features = cast(feature_data(rng, "normal", 1, 3, (voxels,)), dtype)
    pred = rng.random((1, 1, voxels), dtype=np.float32)
    for groups in (1, 3):
        check(Problem(features, pred, pred > 0.4, None, {"groups": groups, "metric": "euclidean"}))


def test_large_planes_are_split_and_counted_alike() -> None:
    rng = np.random.default_rng(0)
    size = (1, 1100, 1100)  # beyond one cached tile: the two-read path
    features = rng.normal(size=(1, 2, *size)).astype(np.float32)
    pred = rng.random((1, 1, *size), dtype=np.float32)
    for groups in (1, 2):
        check(Problem(features, pred, pred > 0.4, None, {"groups": groups, "metric": "euclidean"}))


@pytest.mark.parametrize("sign", [1, -1])
def test_a_threshold_between_two_floats_is_exact(sign: int, isa: str) -> None:
    # The boundary lies 0.6 of the way from 1 to the next float: the nearer float is on its far
    # side, and is foreground all the same.
    one, above = np.float32(1), np.nextafter(np.float32(1), np.float32(2))
    features = sign * np.array([[[one, above]]])
    pred = np.array([[[0, 0.75]]], np.float32)
    counts = psf.sa_counts(features, pred, np.array([[[0, 1]]]))
    assert (counts.tp.item(), counts.predicted.item()) == (1, 1)
    assert psf.segment(features, pred)[0, 0, 0].tolist() == [False, True]


@pytest.mark.parametrize("binarize", [0.0, 0.3, 1.0])
def test_binarize_is_pred_above_the_threshold(binarize: float) -> None:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(1, 4, 40, 40)).astype(np.float32)
    pred = np.where(rng.random((1, 2, 40, 40)) < 0.1, 1.0, rng.random((1, 2, 40, 40)))
    found = psf.prototypes(features, pred, binarize=binarize)
    expected = reference.prototypes(features, pred, binarize=binarize)
    np.testing.assert_allclose(found.positive, expected.positive, atol=1e-6)
    np.testing.assert_allclose(found.negative, expected.negative, atol=1e-6)


def test_without_target_the_reference_is_pred_above_half() -> None:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(1, 4, 40, 40)).astype(np.float32)
    pred = rng.random((1, 2, 40, 40))
    for binarize in (None, 0.2):
        estimate = psf.Guide(pred, binarize=binarize).sa_score(features, groups="unit")
        scored = psf.Guide(pred, pred > 0.5, binarize=binarize).sa_score(features, groups="unit")
        np.testing.assert_array_equal(estimate, scored)


def test_every_dtype_is_listed_in_the_error() -> None:
    with pytest.raises(TypeError) as error:
        psf.sa_score(np.ones((1, 1, 4), int), np.ones((1, 1, 4)), np.ones((1, 1, 4)))
    assert all(name in str(error.value) for name in DTYPES)
