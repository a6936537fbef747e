"""Laws that hold for any input: what must not, and what must, change the answer."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

import protoseg_fast as psf
from problems import Problem, problems


def numpy_problem(problem: Problem) -> tuple[np.ndarray, ...]:
    f = problem.features
    f = f.float().numpy() if isinstance(f, torch.Tensor) else f
    return f, problem.pred, problem.target, problem.mask


@given(problems(), st.randoms(use_true_random=False))
def test_permuting_units_permutes_their_counts(problem: Problem, random: object) -> None:
    f, pred, target, mask = numpy_problem(problem)
    order = np.arange(f.shape[1])
    random.shuffle(order)  # type: ignore[attr-defined]
    guide = psf.Guide(pred, target, mask)
    before = guide.sa_counts(f, groups="unit", **problem.resize)
    after = guide.sa_counts(f[:, order], groups="unit", **problem.resize)
    np.testing.assert_array_equal(before.tp[:, order], after.tp)
    np.testing.assert_array_equal(before.predicted[:, order], after.predicted)


@given(problems(), st.sampled_from([0.25, 2.0, 1024.0]))
def test_scaling_by_a_power_of_two_changes_nothing(problem: Problem, scale: float) -> None:
    f, pred, target, mask = numpy_problem(problem)
    f = f.astype(np.float32)
    guide = psf.Guide(pred, target, mask)
    options = problem.options | problem.resize
    a, b = guide.sa_counts(f, **options), guide.sa_counts(f * np.float32(scale), **options)
    np.testing.assert_array_equal(a.tp, b.tp)
    np.testing.assert_array_equal(a.predicted, b.predicted)


@given(problems(resized=False))
def test_negating_features_changes_nothing(problem: Problem) -> None:
    f, pred, target, mask = numpy_problem(problem)
    guide = psf.Guide(pred, target, mask)
    a, b = guide.sa_counts(f, **problem.options), guide.sa_counts(-f, **problem.options)
    np.testing.assert_array_equal(a.tp, b.tp)
    np.testing.assert_array_equal(a.predicted, b.predicted)


@given(problems(resized=False))
def test_swapping_guide_swaps_prototypes(problem: Problem) -> None:
    f, pred, _, mask = numpy_problem(problem)
    p = np.round(pred.astype(np.float64) * 1024) / 1024  # whose complement is exact
    a, b = psf.prototypes(f, p, mask), psf.prototypes(f, 1 - p, mask)
    scale = np.abs(f.astype(np.float64)).max() + 1e-300
    np.testing.assert_allclose(a.positive / scale, b.negative / scale, atol=1e-6)
    np.testing.assert_allclose(a.negative / scale, b.positive / scale, atol=1e-6)


@given(problems(resized=False))
def test_masked_voxels_may_as_well_be_absent(problem: Problem) -> None:
    f, pred, target, _ = numpy_problem(problem)
    n, voxels = f.shape[0], f[0, 0].size
    keep = np.random.default_rng(voxels).random(voxels) < 0.6
    keep[0] = True
    f, pred, target = (x.reshape(n, x.shape[1], voxels) for x in (f, pred, target))
    mask = np.broadcast_to(keep, (n, 1, voxels))
    masked = psf.prototypes(f, pred, mask)
    absent = psf.prototypes(f[:, :, keep], pred[:, :, keep])
    scale = np.abs(f.astype(np.float64)).max() + 1e-300
    np.testing.assert_allclose(masked.positive / scale, absent.positive / scale, atol=1e-6)
    np.testing.assert_allclose(masked.negative / scale, absent.negative / scale, atol=1e-6)
    np.testing.assert_allclose(masked.positive_weight, absent.positive_weight, rtol=1e-6)
    counts = psf.sa_counts(f, pred, target, mask)
    np.testing.assert_array_equal(counts.voxels, keep.sum())
    np.testing.assert_array_equal(counts.actual[:, 0], target[:, :, keep].sum(axis=2))


@given(problems(), st.integers(2, 4))
def test_counts_of_parts_add_up(problem: Problem, parts: int) -> None:
    f, pred, target, mask = numpy_problem(problem)
    counts = [psf.sa_counts(f, pred, target, mask, **problem.options) for _ in range(parts)]
    total = sum(counts)
    np.testing.assert_array_equal(total.tp, parts * counts[0].tp)
    np.testing.assert_allclose(total.dice, counts[0].dice)
    dice, iou = total.dice, total.iou
    np.testing.assert_allclose(dice, 2 * iou / (1 + iou))


@given(problems(resized=False), st.integers(1, 50))
def test_prototypes_of_parts_merge(problem: Problem, cut: int) -> None:
    f, pred, _, mask = numpy_problem(problem)
    n, voxels = f.shape[0], f[0, 0].size
    cut = min(cut, voxels - 1)
    if cut == 0:
        return
    arrays = [None if x is None else x.reshape(n, x.shape[1], voxels) for x in (f, pred, mask)]
    halves = [
        psf.prototypes(*(None if x is None else x[:, :, part] for x in arrays))
        for part in (slice(None, cut), slice(cut, None))
    ]
    whole, merged = psf.prototypes(*arrays), sum(halves)
    scale = np.abs(f.astype(np.float64)).max() + 1e-300
    for name in ("positive", "negative"):
        a, b = getattr(whole, name) / scale, getattr(merged, name) / scale
        np.testing.assert_allclose(a, b, atol=1e-6)
    np.testing.assert_allclose(merged.positive_weight, whole.positive_weight, rtol=1e-6)


@given(problems())
def test_layouts_give_the_same_bits(problem: Problem) -> None:
    f, pred, target, mask = numpy_problem(problem)
    plain = [None if x is None else np.ascontiguousarray(x) for x in (f, pred, target, mask)]
    options = problem.options | problem.resize
    found = psf.probability(f, pred, mask, **options)
    expected = psf.probability(plain[0], plain[1], plain[3], **options)
    np.testing.assert_array_equal(found, expected)
    a, b = psf.sa_counts(f, pred, target, mask, **options), psf.sa_counts(*plain, **options)
    np.testing.assert_array_equal(a.tp, b.tp)
    p, q = (
        psf.prototypes(f, pred, mask, **problem.resize),
        psf.prototypes(plain[0], plain[1], plain[3], **problem.resize),
    )
    np.testing.assert_array_equal(p.positive, q.positive)
