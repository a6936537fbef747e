"""The engine against the float64 specification, on random problems of every kind."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

import protoseg_fast as psf
from checks import check
from problems import DTYPES, Problem, cast, feature_data, make_mask, problems
from protoseg_fast import reference


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
