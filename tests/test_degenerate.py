"""Degenerate input has one answer each (the documentation's list), for every dtype and backend."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import protoseg_fast as psf
from problems import RESIZE, cast
from protoseg_fast import reference

SIZE = (24, 20)
FEATURE_SIZES = [SIZE, (7, 33)]
METRICS = ["euclidean", "cosine"]


def guide_arrays(targets: int = 2, n: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    pred = rng.random((n, targets, *SIZE), dtype=np.float32)
    return pred, rng.random(pred.shape) < 0.4


def random_features(
    feature_size: tuple[int, ...], dtype: str = "float32", channels: int = 6
) -> Any:
    return cast(np.random.default_rng(6).normal(size=(2, channels, *feature_size)), dtype)


def scored(features: Any, pred: np.ndarray, target: np.ndarray, **options: Any) -> np.ndarray:
    if not isinstance(features, np.ndarray):
        import torch

        pred, target = torch.from_numpy(pred), torch.from_numpy(target)  # type: ignore[assignment]
    return np.asarray(psf.sa_score(features, pred, target, **options))


@pytest.mark.parametrize("feature_size", FEATURE_SIZES)
@pytest.mark.parametrize("empty_side", [0.0, 1.0])
def test_no_foreground_or_background_to_average(
    feature_size: tuple[int, ...], empty_side: float
) -> None:
    pred, target = guide_arrays()
    whole = psf.sa_score(random_features(feature_size), pred, target, groups="unit")
    pred[1, 0] = empty_side
    features = random_features(feature_size)
    score = psf.sa_score(features, pred, target, groups="unit")
    assert np.isnan(score[1, :, 0]).all()
    assert not psf.segment(features, pred, groups=2)[1, :, 0].any()
    assert np.isnan(psf.probability(features, pred)[1, :, 0]).all()
    side = (
        psf.prototypes(features, pred).positive
        if empty_side == 0
        else psf.prototypes(features, pred).negative
    )
    assert np.isnan(side[1, 0]).all()
    # every other image and target is bit-identical
    np.testing.assert_array_equal(score[0], whole[0])
    np.testing.assert_array_equal(score[1, :, 1], whole[1, :, 1])


@pytest.mark.parametrize("feature_size", FEATURE_SIZES)
@pytest.mark.parametrize("resize", RESIZE)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("value", [0.0, 1.0, -3.3, 1000.1, 1e-30, 65000.0])
def test_constant_channels_are_background(
    dtype: str, value: float, metric: str, resize: dict[str, Any], feature_size: tuple[int, ...]
) -> None:
    pred, target = guide_arrays()
    features = cast(np.full((2, 4, *feature_size), value), dtype)
    for groups in ("layer", "unit"):
        score = scored(features, pred, target, groups=groups, metric=metric, **resize)
        np.testing.assert_array_equal(score, 0.0)


@pytest.mark.parametrize("feature_size", FEATURE_SIZES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("position", ["inside", "masked", "first", "last"])
def test_non_finite_features_make_their_group_nan(
    dtype: str, bad: float, position: str, feature_size: tuple[int, ...]
) -> None:
    pred, target = guide_arrays()
    mask = np.ones((2, 1, *SIZE), bool)
    mask[..., 10:, :] = position != "masked"
    clean = random_features(feature_size, dtype)
    at = {"inside": (2, 3), "masked": (-2, 5), "first": (0, 0), "last": (-1, -1)}[position]
    features = clean.copy() if isinstance(clean, np.ndarray) else clean.clone()
    features[1, 3, at[0], at[1]] = bad
    for metric in METRICS:
        options: dict[str, Any] = {"groups": 3, "metric": metric}
        expected = scored(clean, pred, target, **options)
        found = scored(features, pred, target, **options)
        assert np.isnan(found[1, 1]).all()
        expected[1, 1] = np.nan
        np.testing.assert_array_equal(found, expected)
    guide = psf.Guide(pred, target, mask) if isinstance(features, np.ndarray) else None
    if guide is not None:
        counts = guide.sa_counts(features, groups="unit")
        assert not counts.defined[1, 3].any()
        assert counts.defined.sum() == 2 * 6 * 2 - 2
        assert np.isnan(counts.dice[1, 3]).all()
        assert not guide.segment(features, groups="unit")[1, 3].any()
        assert np.isnan(guide.probability(features, groups="unit")[1, 3]).all()


def test_finite_features_beyond_the_range_of_float_sums() -> None:
    pred, target = guide_arrays()
    features = random_features(SIZE)
    huge = features * np.float32(2.0**125)
    np.testing.assert_array_equal(
        psf.sa_score(huge, pred, target, groups="unit"),
        psf.sa_score(features, pred, target, groups="unit"),
    )
    exact = reference.prototypes(huge, pred)
    found = psf.prototypes(huge, pred)
    np.testing.assert_allclose(found.positive, exact.positive, atol=1e-6 * np.abs(huge).max())


@pytest.mark.parametrize("scale", [1e-12, 1e-25, 1e-38, 1e-44])
@pytest.mark.parametrize("masked", [False, True])
def test_tiny_probabilities_lose_no_digits(scale: float, masked: bool) -> None:
    pred, _ = guide_arrays()
    features = random_features(SIZE)
    tiny = (pred.astype(np.float64) * scale).astype(np.float32)
    mask = np.ones((2, 1, *SIZE), np.float32) if masked else None
    found = psf.prototypes(features, tiny, mask)
    exact = reference.prototypes(features, tiny, mask)
    np.testing.assert_allclose(found.positive, exact.positive, atol=1e-6 * np.abs(features).max())
    expected = tiny.astype(np.float64).sum(axis=(2, 3))
    np.testing.assert_allclose(found.positive_weight, expected, rtol=1e-6)


@pytest.mark.parametrize("weight", [1e-30, 1e30])
def test_mask_weights_of_any_magnitude(weight: float) -> None:
    pred, target = guide_arrays()
    features = random_features(SIZE)
    mask = np.full((2, 1, *SIZE), weight)
    found = psf.prototypes(features, pred, mask)
    np.testing.assert_allclose(found.positive, psf.prototypes(features, pred).positive, atol=1e-6)
    np.testing.assert_array_equal(
        psf.sa_counts(features, pred, target, mask).actual,
        psf.sa_counts(features, pred, target).actual,
    )


def test_cosine_of_one_channel_is_the_product_of_signs() -> None:
    pred = np.array([[[1.0, 1.0, 0.0, 0.0]]])
    same_sign = np.array([[[3.0, 2.0, 1.0, 1.0]]])
    assert not psf.segment(same_sign, pred, metric="cosine").any()
    np.testing.assert_array_equal(psf.probability(same_sign, pred, metric="cosine"), 0.5)
    opposite = np.array([[[3.0, 0.0, -1.0, 2.0]]])
    found = psf.segment(opposite - 0.75, pred, metric="cosine")
    assert found[0, 0, 0].tolist() == [True, False, False, True]


EMPTY = {
    # policy: (both empty, only G empty, only S empty)
    "nan": (np.nan, 0.0, 0.0),
    "monai": (np.nan, np.nan, 0.0),
    "one": (1.0, 0.0, 0.0),
    "zero": (0.0, 0.0, 0.0),
}


@pytest.mark.parametrize("policy", EMPTY)
def test_empty_masks(policy: str) -> None:
    pred = np.array([[[1.0, 1.0, 0.0, 0.0]]])
    constant, useful = np.ones((1, 1, 4)), np.array([[[1.0, 1.0, 0.0, 0.0]]])
    none, some = np.zeros((1, 1, 4), bool), pred > 0.5
    cases = [(constant, none), (useful, none), (constant, some)]
    for (features, target), expected in zip(cases, EMPTY[policy], strict=True):
        found = psf.sa_score(features, pred, target, empty=policy)[0, 0, 0]
        np.testing.assert_equal(found, expected)
        np.testing.assert_equal(
            reference.sa_score(features, pred, target, empty=policy)[0, 0, 0], expected
        )


def test_everything_masked_is_undefined() -> None:
    pred, target = guide_arrays()
    counts = psf.sa_counts(random_features(SIZE), pred, target, np.zeros((2, 1, *SIZE), bool))
    assert not counts.defined.any()
    assert (counts.voxels == 0).all()
    assert np.isnan(counts.dice).all()


def test_one_voxel() -> None:
    one = np.ones((1, 1, 1))
    assert np.isnan(psf.sa_score(one, one, one)).all()
    assert psf.sa_score(one, one / 2, one)[0, 0, 0] == 0


def test_degenerate_answers_come_without_warnings() -> None:
    pred, target = guide_arrays()
    pred[:] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features = random_features(SIZE)
        features[0, 0, 0, 0] = np.nan
        counts = psf.sa_counts(features, pred, target, groups="unit")
        _ = counts.dice, counts.iou, counts.precision, counts.recall, repr(counts)
        _ = repr(psf.prototypes(features, pred))
        psf.mean_sa([counts.dice])
