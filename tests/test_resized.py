"""Features of another size: slabs in fixed point decide what the specification decides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import protoseg_fast as psf
from checks import check
from problems import Problem, feature_data, make_mask
from protoseg_fast import reference

MODES = ({}, {"align_corners": True}, {"interpolation": "nearest"})


def make_problem(
    feature_size: tuple[int, ...],
    size: tuple[int, ...],
    *,
    seed: int = 0,
    kind: str = "normal",
    channels: int = 3,
    targets: int = 1,
    mask: str | None = None,
    dtype: str = "float32",
    **options: Any,
) -> Problem:
    rng = np.random.default_rng(seed)
    resize = {k: options.pop(k) for k in ("align_corners", "interpolation") if k in options}
    pred = rng.random((1, targets, *size), dtype=np.float32)
    return Problem(
        feature_data(rng, kind, 1, channels, feature_size).astype(dtype),
        pred,
        rng.random(pred.shape) < 0.3,
        make_mask(rng, mask, 1, size),
        {"groups": "unit", "metric": "euclidean"} | options,
        resize,
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("factor", [0.2, 0.7, 1, 1.4, 2, 3, 4.3, 5, 8, 16])
def test_every_factor(factor: float, mode: dict[str, Any], isa: str) -> None:
    for feature_size in ((90,), (13, 11), (5, 6, 7)):
        size = tuple(max(1, round(factor * n)) for n in feature_size)
        check(make_problem(feature_size, size, mask="bool", **mode))
        check(make_problem(feature_size, size, groups="layer", **mode))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("feature_size", "size"),
    [
        ((12, 20), (12, 90)),  # one axis equal
        ((12, 20), (70, 20)),
        ((30, 8), (11, 64)),  # one axis reduced, one enlarged
        ((8, 30), (64, 11)),
        ((4, 9, 5), (4, 30, 3)),
        ((6, 1, 5), (20, 1, 31)),
        ((1, 7, 7), (9, 21, 28)),
        ((5, 7, 1), (1, 7, 40)),
        ((2, 3, 4), (40, 2, 9)),
        ((1, 1), (33, 65)),
    ],
)
def test_axes_of_different_fates(
    feature_size: tuple[int, ...], size: tuple[int, ...], mode: dict[str, Any]
) -> None:
    check(make_problem(feature_size, size, targets=2, mask="weights", **mode))


def test_rows_of_many_words() -> None:
    check(make_problem((9, 150), (60, 1100), channels=2))
    check(make_problem((40, 700), (47, 800), channels=2))
    check(make_problem((6, 1500), (30, 200), channels=2))  # taps of a word far apart
    check(make_problem((9000,), (20000,), channels=2, align_corners=True))


def test_slices_of_several_bands() -> None:
    check(make_problem((3, 20, 30), (7, 300, 200), channels=2, kind="smooth"))
    check(make_problem((2, 1, 30), (4, 400, 200), channels=1, mask="bool"))  # long intervals
    check(make_problem((3, 4, 90), (5, 3, 40000), channels=1))


@pytest.mark.parametrize("mask", [None, "bool"])
@pytest.mark.parametrize("axis", [0, 1])
def test_rows_on_one_side_of_the_threshold(axis: int, mask: str | None, isa: str) -> None:
    for feature_size, size in (((24, 9), (100, 37)), ((8, 9, 5), (31, 40, 19)), ((9, 8), (9, 64))):
        problem = make_problem(feature_size, size, targets=2, mask=mask)
        ramp = np.linspace(-40, 60, feature_size[axis]).reshape(
            [-1 if k == axis else 1 for k in range(len(feature_size))]
        )
        slopes = np.array([1, -1, 0.03], np.float32).reshape(3, *[1] * len(feature_size))
        problem.features = problem.features + (slopes * ramp.astype(np.float32))[None]
        check(problem)


def test_planes_of_several_slabs() -> None:
    check(make_problem((500, 260), (610, 900), channels=2, kind="smooth"))
    check(make_problem((21, 60, 70), (40, 90, 80), channels=1, kind="smooth"))
    check(make_problem((21, 60, 70), (40, 90, 80), channels=2, groups="layer"))


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [("float16", scale) for scale in (3e-7, 6e4)]
    + [("float32", scale) for scale in (1e-44, 1e-38, 1e-20, 1e20, 3e38)]
    + [("float64", scale) for scale in (1e-44, 1e-38, 1e20, 3e38, 1e140)],
)
def test_magnitudes_beyond_the_first_look(scale: float, dtype: str, isa: str) -> None:
    # Fixed point and float overflow, underflow or lose every digit: double must decide
    problem = make_problem((9, 10), (40, 41), dtype="float64")
    features = (problem.features / 5 * scale).astype(dtype)
    problem.features = features
    exact = features.astype(np.float64)
    unit = np.abs(exact).max()
    guide = psf.Guide(*problem.guide)
    prototypes = guide.prototypes(features)
    expected = reference.prototypes(exact, problem.pred)
    for found, wanted in zip((prototypes.positive, prototypes.negative), expected, strict=True):
        np.testing.assert_allclose(found / unit, wanted / unit, rtol=0, atol=1e-6)
    # The margin's square would leave double's range: decide by the side of the midpoint
    resized = reference.resize(exact / unit, (40, 41))
    a, b = (x[0, 0, :, None, None] / unit for x in (prototypes.positive, prototypes.negative))
    distance = np.sign(a - b) * (resized[0] - (a + b) / 2)
    doubtful = (np.abs(distance) <= 1e-13).sum(axis=(1, 2))
    counts = guide.sa_counts(features, groups="unit")
    predicted = (distance > 0).sum(axis=(1, 2))
    tp = ((distance > 0) & problem.target[0, 0]).sum(axis=(1, 2))
    assert (np.abs(counts.predicted[0, :, 0] - predicted) <= doubtful).all()
    assert (np.abs(counts.tp[0, :, 0] - tp) <= doubtful).all()


def test_outliers_leave_the_other_voxels_exact(isa: str) -> None:
    problem = make_problem((20, 24), (90, 101))
    problem.features[0, 0, 3, 4] = 1e9
    problem.features[0, 1, 3, 4] = -1e4
    problem.features[0, 2, :, 4] *= 300
    check(problem)


def test_ties_everywhere(isa: str) -> None:
    # Checkerboard of two values with symmetric prototypes: every cell's centre lies on the boundary
    board = np.indices((16, 16)).sum(axis=0) % 2
    features = np.stack([board, 1 - board, np.zeros_like(board)])[None].astype(np.float32)
    pred = np.repeat(np.repeat(board, 5, 0), 5, 1)[None, None].astype(np.float32)
    problem = Problem(features, pred, pred > 0, None, {"groups": "unit", "metric": "euclidean"}, {})
    check(problem)
    problem.resize = {"align_corners": True}
    check(problem)


@pytest.mark.parametrize(
    ("feature_size", "size"),
    [((40,), (297,)), ((7, 11), (17, 71)), ((4, 10), (23, 59)), ((4, 5, 6), (17, 23, 19))],
)
@pytest.mark.parametrize("kind", ["checkerboard", "noise"])  # steps as large as can be, or any
def test_thresholds_next_to_voxels(
    feature_size: tuple[int, ...], size: tuple[int, ...], kind: str, isa: str
) -> None:
    # A look in fixed point must doubt every voxel that its roundings could move across
    rng = np.random.default_rng(0)
    board = np.indices(feature_size).sum(axis=0) % 2
    plane = (board if kind == "checkerboard" else rng.normal(size=feature_size)).astype(np.float32)
    values = reference.resize(plane[None, None], size)[0, 0]
    chosen = rng.permutation(np.unique(values))[:800]
    threshold = np.concatenate([chosen - 1e-9, chosen + 1e-9])
    one = np.ones((1, 1))
    prototypes = psf.Prototypes(threshold[None, None] + 1, threshold[None, None] - 1, one, one)
    target = rng.random((1, 1, *size)) < 0.5
    guide = psf.Guide(np.full((1, 1, *size), 0.5), target)
    features = np.ascontiguousarray(np.broadcast_to(plane, (1, len(threshold), *feature_size)))
    counts = guide.sa_counts(features, prototypes, groups="unit")
    foreground = values > threshold.reshape(-1, *[1] * len(size))
    axes = tuple(range(1, foreground.ndim))
    np.testing.assert_array_equal(counts.predicted[0, :, 0], foreground.sum(axes))
    np.testing.assert_array_equal(counts.tp[0, :, 0], (foreground & target[0]).sum(axes))


@pytest.mark.parametrize(
    ("feature_size", "size"),
    [((100, 64), (1000, 640)), ((1, 7, 7), (90, 60, 60)), ((50,), (9000,))],
)
@pytest.mark.parametrize("mask", [None, "bool"])
def test_every_voxel_in_doubt(
    feature_size: tuple[int, ...], size: tuple[int, ...], mask: str | None
) -> None:
    problem = make_problem(feature_size, size, mask=mask, channels=16, dtype="float64")
    guide = psf.Guide(*problem.guide)
    expected = guide.sa_counts(problem.features, groups="unit")
    # Fixed point cannot hold it; a power of two changes no decision
    found = guide.sa_counts(problem.features * 2.0**-120, groups="unit")
    np.testing.assert_array_equal(found.predicted, expected.predicted)
    np.testing.assert_array_equal(found.tp, expected.tp)


@pytest.mark.parametrize("groups", ["unit", "layer"])
def test_voxels_within_rounding_are_few_and_the_only_ones_that_differ(groups: str) -> None:
    problem = make_problem((37, 37), (200, 200), channels=16, groups=groups)
    guide = psf.Guide(*problem.guide)
    found = guide.prototypes(problem.features)
    boundary = reference.Boundary(np.asarray(found.positive), np.asarray(found.negative))
    margin = reference.boundary_margin(problem.features, boundary, (200, 200), groups=groups)
    scale = np.abs(margin).max(axis=(3, 4), keepdims=True)
    in_band = (np.abs(margin) <= 1e-13 * scale).sum(axis=(3, 4))
    assert in_band.sum() <= 1
    counts = guide.sa_counts(problem.features, groups=groups)
    predicted = (margin > 0).sum(axis=(3, 4))
    tp = ((margin > 0) & problem.target[:, None]).sum(axis=(3, 4))
    assert (np.abs(counts.predicted - predicted) <= in_band).all()
    assert (np.abs(counts.tp - tp) <= in_band).all()


def test_a_guide_keeps_weights_and_taps_whatever_the_channels() -> None:
    size, rng = (192, 200), np.random.default_rng(0)
    pred = rng.random((1, 2, *size), dtype=np.float32)
    guide = psf.Guide(pred, pred > 0.4)
    kept = [guide.nbytes]
    for channels in (2, 64):
        for feature_size in ((12, 12), (48, 50), (96, 100)):
            features = rng.normal(size=(1, channels, *feature_size)).astype(np.float32)
            guide.sa_score(features, groups="unit")
        kept.append(guide.nbytes)
    assert kept[0] < kept[1] == kept[2]
    weights = sum(2 * 2 * 4 * h * w for h, w in ((12, 12), (48, 50), (96, 100)))
    assert kept[1] - kept[0] - weights < 3 * 64 * sum(size)  # taps, nothing per voxel
