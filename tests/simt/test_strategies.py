"""What holds whatever the strategy: the same bits; several segments, blocks and clusters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import protoseg_fast as psf
from checks import check
from problems import Problem, cast, make_mask, with_layout
from simt.engine.package import HostGuide
from tunings import TUNINGS

# More than one segment (8192 voxels) and not a multiple of anything.
SIZES = [(30011,), (157, 131), (23, 31, 29)]
LARGE = [
    tuning
    for tuning in TUNINGS
    if tuning.get("strategy") != "small"
    and tuning != {"strategy": "resident", "units": 4}  # do not fit into shared memory
]


def problem_of(
    size: tuple[int, ...],
    feature_size: tuple[int, ...] | None = None,
    dtype: str = "float32",
    layout: str = "contiguous",
    channels: int = 5,
    targets: int = 2,
    mask: str | None = None,
    seed: int = 0,
    **options: Any,
) -> Problem:
    """Two images of random features, shifted so that references matter."""
    rng = np.random.default_rng(seed)
    feature_size = feature_size or size
    x = rng.normal(size=(2, channels, *feature_size)) + rng.normal(
        size=(1, channels, *(1,) * len(size))
    )
    pred = rng.random((2, targets, *size), dtype=np.float32)
    target = rng.random(pred.shape) < 0.3
    features = with_layout(rng, layout, cast(x, dtype))
    options = {"groups": "unit", "metric": "euclidean"} | options
    return Problem(features, pred, target, make_mask(rng, mask, 2, size), options, {})


@pytest.mark.parametrize("tuning", LARGE, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_planes_of_several_segments(size: tuple[int, ...], tuning: dict[str, Any]) -> None:
    dtype = {1: "float16", 2: "float32", 3: "float64"}[len(size)]
    if dtype == "float64" and tuning.get("units", 0) > 1 and tuning.get("cluster", 8) < 8:
        tuning = tuning | {"units": 1}  # more does not fit into shared memory
    problem = problem_of(size, dtype=dtype, mask="weights" if len(size) == 2 else None)
    check(problem, lambda *arrays: HostGuide(*arrays, **tuning))


@pytest.mark.parametrize("layout", ["channels_last", "sliced", "reversed", "transposed"])
@pytest.mark.parametrize("tuning", LARGE[1:], ids=str)
def test_same_bits_in_every_layout_and_strategy(layout: str, tuning: dict[str, Any]) -> None:
    size = (97, 101)
    plain = problem_of(size)
    other = problem_of(size, layout=layout)
    expected = HostGuide(*plain.guide)
    found = HostGuide(*other.guide, **tuning)
    for a, b in zip(
        found.prototypes(other.features), expected.prototypes(plain.features), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(
        found.sa_counts(other.features, groups="unit"),
        expected.sa_counts(plain.features, groups="unit"),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("offset", [1, 2, 3, 5])
def test_same_bits_at_every_alignment(dtype: str, offset: int) -> None:
    plain = problem_of((67, 71), dtype=dtype)
    x = torch.as_tensor(plain.features)
    buffer = torch.empty(x.numel() + 16, dtype=x.dtype)
    start = (-buffer.data_ptr() // x.element_size()) % 16 + offset
    moved = buffer[start : start + x.numel()].view(x.shape)
    moved[...] = x
    arrays = [None if a is None else torch.as_tensor(a) for a in (plain.pred, plain.target)]
    for tuning in ({"strategy": "resident"}, {"strategy": "split"}):
        guide = HostGuide(*arrays, **tuning)
        for a, b in zip(
            (*guide.prototypes(moved), *guide.sa_counts(moved, groups="unit")),
            (*guide.prototypes(x), *guide.sa_counts(x, groups="unit")),
            strict=True,
        ):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(guide.segment(moved), guide.segment(x))


@pytest.mark.parametrize("targets", [1, 4, 5, 9])
@pytest.mark.parametrize("tuning", [*LARGE[1:], {"strategy": "small"}], ids=str)
def test_any_number_of_targets(targets: int, tuning: dict[str, Any]) -> None:
    size = (11, 17) if tuning["strategy"] == "small" else (60, 149)
    problem = problem_of(size, targets=targets, channels=3)
    check(problem, lambda *arrays: HostGuide(*arrays, **tuning))


@pytest.mark.parametrize("groups", [1, 3, "unit"])
@pytest.mark.parametrize(
    ("feature_size", "size"),
    [
        ((16, 16), (200, 180)),
        ((64, 64), (256, 256)),
        ((150, 130), (40, 70)),
        ((9, 7, 8), (40, 30, 50)),
    ],
    ids=str,
)
def test_resized_maps_of_several_tiles(
    feature_size: tuple[int, ...], size: tuple[int, ...], groups: int | str
) -> None:
    channels = 6 if groups == 3 else 3
    problem = problem_of(size, feature_size, channels=channels, groups=groups, mask="bool")
    for tuning in ({}, {"strategy": "resident"}, {"strategy": "split", "cache_bytes": 1}):
        check(problem, lambda *arrays, t=tuning: HostGuide(*arrays, **t))


@pytest.mark.parametrize("tuning", LARGE, ids=str)
def test_target_and_output_in_one_pass(tuning: dict[str, Any]) -> None:
    problem = problem_of((130, 90), mask="bool")
    guide = HostGuide(*problem.guide, **tuning)
    both = guide.sa_counts_both(problem.features, groups="unit")
    alone = psf.Guide(problem.pred, None, problem.mask)
    for a, b in zip(both[0], guide.sa_counts(problem.features, groups="unit"), strict=True):
        np.testing.assert_array_equal(a, b)
    without = HostGuide(problem.pred, None, problem.mask, **tuning)
    for a, b in zip(both[1], without.sa_counts(problem.features, groups="unit"), strict=True):
        np.testing.assert_array_equal(a, b)
    expected = alone.sa_counts(problem.features, groups="unit")
    np.testing.assert_array_equal(
        both[1].actual, np.broadcast_to(expected.actual, both[1].tp.shape)
    )
    np.testing.assert_array_equal(both[1].tp, expected.tp)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("position", [0, 9000, -1])
@pytest.mark.parametrize("tuning", LARGE, ids=str)
def test_features_that_are_not_finite(tuning: dict[str, Any], position: int, bad: float) -> None:
    problem = problem_of((130, 90), channels=4)
    guide = HostGuide(*problem.guide, **tuning)
    clean = guide.sa_counts(problem.features, groups="unit")
    features = problem.features.copy()
    features[1, 2].reshape(-1)[position] = bad
    found = guide.sa_counts(features, groups="unit")
    assert not found.defined[1, 2].any()
    assert found.defined.sum() == found.defined.size - 2
    assert not guide.segment(features, groups="unit")[1, 2].any()
    assert np.isnan(guide.probability(features, groups="unit")[1, 2]).all()
    for a, b in zip(found, clean, strict=True):
        if a.shape == found.tp.shape:
            np.testing.assert_array_equal(a[found.defined], b[found.defined])


@pytest.mark.parametrize("scale", [1e-44, 1e-38, 1e-12, 2.0**100])
def test_tiny_and_huge_features(scale: float) -> None:
    problem = problem_of((50, 60))
    features = (problem.features * scale).astype(np.float32)
    found = HostGuide(*problem.guide).prototypes(features)
    expected = psf.reference.prototypes(features, problem.pred)
    largest = np.abs(features).max()
    np.testing.assert_allclose(found.positive, expected.positive, rtol=0, atol=1e-6 * largest)
    np.testing.assert_allclose(found.negative, expected.negative, rtol=0, atol=1e-6 * largest)


@pytest.mark.parametrize("value", [0.0, 1.0, -3.3, 1e-30, 65000.0])
@pytest.mark.parametrize("feature_size", [(24, 20), (7, 33)])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_constant_channels_are_background(
    value: float, feature_size: tuple[int, ...], metric: str
) -> None:
    problem = problem_of((24, 20))
    guide = HostGuide(*problem.guide)
    for dtype in ("float16", "float32", "float64"):
        features = np.full((2, 4, *feature_size), value).astype(dtype)
        for groups in ("layer", "unit"):
            counts = guide.sa_counts(features, groups=groups, metric=metric)
            assert counts.defined.all()
            assert counts.predicted.sum() == 0


@pytest.mark.parametrize("scale", [1e-12, 1e-25, 1e-38, 1e-44])
@pytest.mark.parametrize("masked", [False, True])
def test_tiny_probabilities_lose_no_digits(scale: float, masked: bool) -> None:
    problem = problem_of((24, 20))
    tiny = (problem.pred.astype(np.float64) * scale).astype(np.float32)
    mask = np.ones((2, 1, 24, 20), np.float32) if masked else None
    found = HostGuide(tiny, None, mask).prototypes(problem.features)
    exact = psf.reference.prototypes(problem.features, tiny, mask)
    scale_of = np.abs(problem.features).max()
    np.testing.assert_allclose(found.positive, exact.positive, atol=1e-6 * scale_of)
    weight = tiny.astype(np.float64).sum(axis=(2, 3))
    np.testing.assert_allclose(found.positive_weight, weight, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pred": 1.5}, r"span \[.*, 1\.5\].*sigmoid"),
        ({"pred": -0.25}, r"span \[-0\.25"),
        ({"pred": np.nan}, "pred contains NaN"),
        ({"target": 2.0}, "target must be binary"),
        ({"target": np.nan}, "target must be binary"),
        ({"mask": np.nan}, "mask contains NaN"),
        ({"mask": -1.0}, r"mask must hold finite weights >= 0"),
        ({"mask": np.inf}, r"mask must hold finite weights >= 0"),
    ],
    ids=str,
)
def test_values_that_are_not_acceptable(change: dict[str, float], words: str) -> None:
    rng = np.random.default_rng(3)
    arrays = {
        "pred": rng.random((2, 2, 30, 40)),
        "target": (rng.random((2, 2, 30, 40)) < 0.4).astype(np.float32),
        "mask": rng.random((2, 1, 30, 40)).astype(np.float32),
    }
    HostGuide(**arrays).check()
    for name, value in change.items():
        arrays[name][1, -1, 7, 11] = value
    with pytest.raises(ValueError, match=words):
        psf.Guide(**arrays)
    guide = HostGuide(**arrays)
    features = rng.normal(size=(2, 3, 30, 40))
    assert not guide.sa_counts(features, groups="unit").defined.any()
    assert not guide.sa_counts(features).defined.any()
    assert not guide.segment(features).any()
    with pytest.raises(ValueError, match=words):
        guide.check()
