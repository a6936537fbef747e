"""Counts, Prototypes and mean SA: scores made from counts, merging, conversion."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import protoseg_fast as psf
from protoseg_fast import _core, reference


def make_counts(
    tp: int, predicted: int, actual: int, defined: bool = True, voxels: int = 100
) -> psf.Counts:
    def one(value: int | bool) -> np.ndarray:
        return np.array([[[value]]])

    return psf.Counts(one(tp), one(predicted), one(actual), one(voxels), one(defined))


def test_arrays_that_are_no_counts_are_refused() -> None:
    given = {name: np.ones((2, 3, 1), np.int32) for name in ("tp", "predicted", "actual")}
    given |= {"voxels": np.full((2, 1, 1), 9, np.uint8), "defined": np.ones((2, 3, 1), bool)}
    counts = psf.Counts(**given)
    assert (counts.dice == 1).all()
    assert counts.voxels.dtype == np.int64
    for name, wrong in (
        ("actual", given["actual"][:1]),
        ("voxels", given["voxels"][:1]),
        ("defined", given["defined"][:, :1]),
    ):
        with pytest.raises(ValueError, match=f"{name} must have shape"):
            psf.Counts(**given | {name: wrong})
    with pytest.raises(ValueError, match="tp must have shape"):
        psf.Counts(**{name: array[0] for name, array in given.items()})
    with pytest.raises(TypeError, match="tp must be int64, got dtype float64"):
        psf.Counts(**given | {"tp": given["tp"] / 2})
    with pytest.raises(TypeError, match="defined must be bool"):
        psf.Counts(**given | {"defined": given["tp"]})


@pytest.mark.parametrize(
    ("tp", "predicted", "actual", "voxels"),
    [(5, 2, 9, 100), (5, 9, 2, 100), (-1, 2, 2, 9), (0, -1, 2, 9), (1, 5, 5, 8), (0, 1, 0, -1)],
)
def test_numbers_that_count_nothing_are_refused(
    tp: int, predicted: int, actual: int, voxels: int
) -> None:
    with pytest.raises(ValueError, match=rf"got tp={tp}, .*voxels={voxels} at \(0, 0, 0\)"):
        make_counts(tp, predicted, actual, voxels=voxels)


def test_the_largest_numbers_are_compared() -> None:
    most = 2**63 - 1
    assert make_counts(0, most, 0, voxels=most).precision.item() == 0
    with pytest.raises(ValueError, match="predicted"):
        make_counts(0, most, most, voxels=most)
    wide = np.full((1, 1, 1), 2**63, np.uint64)
    with pytest.raises(ValueError, match="tp"):
        psf.Counts(wide, wide, wide, wide, np.ones((1, 1, 1), bool))


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_counts_and_prototypes_are_copies(convert: Any) -> None:
    rng = np.random.default_rng(0)
    f, p = rng.normal(size=(1, 2, 64)), rng.random((1, 1, 64))
    for parts in (psf.sa_counts(f, p, p > 0.5), psf.prototypes(f, p)):
        given = {name: convert(array.copy()) for name, array in parts.to_dict().items()}
        again = type(parts)(**given)
        for array in given.values():
            array[:] = 0
        for name, array in parts.to_dict().items():
            np.testing.assert_array_equal(again.to_dict()[name], array)


def test_scores_of_counts() -> None:
    counts = make_counts(tp=6, predicted=8, actual=12)
    assert counts.dice.item() == pytest.approx(12 / 20)
    assert counts.iou.item() == pytest.approx(6 / 14)
    assert counts.precision.item() == pytest.approx(6 / 8)
    assert counts.recall.item() == pytest.approx(6 / 12)


@pytest.mark.parametrize("empty", _core.option_names()["empty"])
@pytest.mark.parametrize("name", _core.option_names()["score"])
@pytest.mark.parametrize("tp_s_g", [(0, 0, 0), (0, 0, 5), (0, 5, 0), (0, 3, 4), (2, 3, 4)])
@pytest.mark.parametrize("defined", [True, False])
def test_scores_are_the_reference_s(
    name: str, empty: str, tp_s_g: tuple[int, int, int], defined: bool
) -> None:
    counts = make_counts(*tp_s_g, defined=defined)
    expected = reference.score(reference.CountArrays(**counts.to_dict()), name, empty)
    np.testing.assert_array_equal(counts.score(name, empty=empty), expected)


def test_unknown_score() -> None:
    with pytest.raises(ValueError, match='score must be one of "dice"'):
        make_counts(1, 2, 3).score("kappa")
    with pytest.raises(TypeError, match="name must be a string, got NoneType"):
        make_counts(1, 2, 3).score(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="empty must be a string, got bool"):
        make_counts(1, 2, 3).score(empty=True)  # type: ignore[arg-type]


def test_counts_merge() -> None:
    total = sum([make_counts(1, 2, 3), make_counts(4, 5, 6), make_counts(0, 0, 1)])
    assert total.to_dict() == {
        name: np.array([[[value]]])
        for name, value in {
            "tp": 5, "predicted": 7, "actual": 10, "voxels": 300, "defined": True
        }.items()
    }  # fmt: skip
    undefined = make_counts(1, 2, 3) + make_counts(1, 2, 3, defined=False)
    assert np.isnan(undefined.dice).all()


def test_parts_that_do_not_fit() -> None:
    rng = np.random.default_rng(0)
    f, p = rng.normal(size=(1, 4, 9)), rng.random((1, 1, 9))
    with pytest.raises(ValueError, match=r"Counts merge.*\(N, G, T\).*\(1, 1, 1\).*\(1, 4, 1\)"):
        psf.sa_counts(f, p, p > 0.5) + psf.sa_counts(f, p, p > 0.5, groups="unit")
    with pytest.raises(ValueError, match=r"Prototypes merge.*\(N, T, C\)"):
        psf.prototypes(f, p) + psf.prototypes(f[:, :2], p)
    tensors = [torch.from_numpy(x) for x in (f, p)]
    with pytest.raises(TypeError, match="within one array library"):
        psf.prototypes(f, p) + psf.prototypes(*tensors)
    with pytest.raises(TypeError):
        psf.prototypes(f, p) + 1
    with pytest.raises(TypeError):
        psf.sa_counts(f, p, p > 0.5) + psf.prototypes(f, p)


def test_prototypes_of_constant_channels_stay_equal_when_merged() -> None:
    f = np.full((1, 2, 64), 0.1)
    rng = np.random.default_rng(0)
    merged = sum(psf.prototypes(f, rng.random((1, 1, 64))) for _ in range(5))
    np.testing.assert_array_equal(merged.positive, merged.negative)


def test_a_part_without_foreground_has_no_say() -> None:
    rng = np.random.default_rng(0)
    f, p = rng.normal(size=(1, 2, 64)), rng.random((1, 1, 64))
    whole = psf.prototypes(f, p)
    merged = psf.prototypes(f * 100, np.zeros_like(p)) + whole
    np.testing.assert_array_equal(merged.positive, whole.positive)
    merged = whole + psf.prototypes(f * 100, np.zeros_like(p))
    np.testing.assert_array_equal(merged.positive, whole.positive)


def make_prototypes(mean: float, weight: float, convert: Any) -> psf.Prototypes:
    """Prototypes (1, 1, 2) with one mean and weight on both sides."""
    means, weights = convert(np.full((1, 1, 2), mean)), convert(np.full((1, 1), weight))
    return psf.Prototypes(means, means, weights, weights)


@pytest.mark.parametrize("dtype", ["uint8", "int32", ">f4", "float16", "float64"])
@pytest.mark.parametrize("layout", ["C", "F"])
def test_prototypes_of_any_dtype_merge_as_float64(dtype: str, layout: Any) -> None:
    parts = [make_prototypes(x, 200, lambda a: a.astype(dtype, order=layout)) for x in (1, 3)]
    merged = sum(parts)
    for found, expected in zip(merged.to_dict().values(), (2, 2, 400, 400), strict=True):
        assert found.dtype == np.float64
        assert (found == expected).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int16"])
def test_prototypes_of_any_dtype_of_torch_merge_as_float64(dtype: str) -> None:
    parts = [
        make_prototypes(x, 20480, lambda a: torch.from_numpy(a).to(getattr(torch, dtype)))
        for x in (1, 3, 3, 1)
    ]
    merged = sum(parts)
    assert merged.positive_weight.dtype == torch.float64
    assert merged.positive_weight.item() == 81920, "more than float16 holds"
    assert (merged.negative == 2).all()


def test_arrays_that_are_no_prototypes_are_refused() -> None:
    given = {name: np.ones((1, 2, 3)) for name in ("positive", "negative")}
    given |= {f"{name}_weight": np.ones((1, 2)) for name in given}
    assert psf.Prototypes(**given).positive.shape == (1, 2, 3)
    for name, wrong in (
        ("negative", np.ones((1, 1, 3))),
        ("negative", np.ones((1, 2, 1))),
        ("positive_weight", np.ones((2, 1))),
        ("negative_weight", np.ones((1, 1))),
    ):
        with pytest.raises(ValueError, match=f"{name} must have shape .* to go with positive"):
            psf.Prototypes(**given | {name: wrong})
    with pytest.raises(ValueError, match="positive must have shape"):
        psf.Prototypes(**given | {"positive": np.ones((2, 3))})
    for wrong in (-1.0, np.nan):
        with pytest.raises(ValueError, match="negative_weight must not be negative or NaN"):
            psf.Prototypes(**given | {"negative_weight": np.full((1, 2), wrong)})
    with pytest.raises(TypeError, match="positive must be float64, got dtype bool"):
        psf.Prototypes(**given | {"positive": given["positive"] > 0})


def test_mean_sa_skips_nan_and_counts() -> None:
    a = np.array([[[0.5, np.nan]], [[0.1, 0.2]]])  # N = 2, G = 1, T = 2
    b = np.array([[[0.7, np.nan], [0.9, np.nan]], [[np.nan, 0.4], [0.3, 0.6]]])
    value, count = psf.mean_sa([a, b])
    np.testing.assert_allclose(value, [[0.7, np.nan], [0.2, 0.4]])
    np.testing.assert_array_equal(count, [[3, 0], [2, 3]])
    one, _ = psf.mean_sa(a)
    np.testing.assert_array_equal(one, a[:, 0])
    assert isinstance(psf.mean_sa([torch.from_numpy(a)]).value, torch.Tensor)


@pytest.mark.parametrize("library", ["torch", "jax.numpy"])
def test_mean_sa_of_bfloat16(library: str) -> None:
    xp = pytest.importorskip(library)
    value, count = psf.mean_sa([xp.ones((1, 2, 1), dtype=xp.bfloat16) * 0.75])
    assert (value.item(), count.item()) == (0.75, 2)


def test_option_names_are_those_of_the_type_hints() -> None:
    from typing import get_args

    from protoseg_fast import guide

    names = _core.option_names()
    assert list(get_args(guide.Metric)) == names["metric"]
    assert list(get_args(guide.Interpolation)) == names["interpolation"]
    assert list(get_args(guide.Empty)) == names["empty"]


@pytest.mark.parametrize("groups", [1, 2, "unit"])
@pytest.mark.parametrize("feature_size", [(40, 50), (11, 13)])
@pytest.mark.parametrize("masked", [False, True])
def test_both_references_in_one_pass(
    feature_size: tuple[int, ...], groups: int | str, masked: bool
) -> None:
    rng = np.random.default_rng(5)
    features = rng.normal(size=(2, 6, *feature_size)).astype(np.float32)
    pred = rng.random((2, 3, 40, 50), dtype=np.float32)
    target = rng.random(pred.shape) < 0.3
    mask = rng.random((2, 1, 40, 50)) < 0.7 if masked else None
    guide = psf.Guide(pred, target, mask)
    both = guide.sa_counts_both(features, groups=groups)
    expected = {
        "target": guide.sa_counts(features, groups=groups),
        "output": psf.Guide(pred, None, mask).sa_counts(features, groups=groups),
    }
    for name, counts in expected.items():
        for field, array in counts.to_dict().items():
            np.testing.assert_array_equal(getattr(both, name).to_dict()[field], array)
    alone = psf.Guide(pred, None, mask).sa_counts_both(features, groups=groups)
    np.testing.assert_array_equal(alone.target.tp, alone.output.tp)
    np.testing.assert_array_equal(alone.output.tp, expected["output"].tp)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("feature_size", [(40, 50), (11, 13)])
@pytest.mark.parametrize("layout", ["contiguous", "channels-last"])
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_several_divisions_are_counted_as_each_alone(
    dtype: Any, feature_size: tuple[int, ...], layout: str, given: bool, metric: Any
) -> None:
    rng = np.random.default_rng(6)
    features = rng.normal(size=(2, 22, *feature_size)).astype(dtype)
    features[0, 3] = 7.0  # a dead unit is background in every division
    if layout == "channels-last":
        features = np.moveaxis(np.ascontiguousarray(np.moveaxis(features, 1, -1)), -1, 1)
    pred = rng.random((2, 2, 40, 50), dtype=np.float32)
    guide = psf.Guide(pred, rng.random(pred.shape) < 0.3)
    prototypes = guide.prototypes(features) + guide.prototypes(-features) if given else None
    divisions: list[Any] = ["layer", 11, "unit", "layer"]
    (found,) = guide._sa_counts_of_layers([(features, divisions, prototypes)], metric=metric)
    for groups, both in zip(divisions, found, strict=True):
        alone = guide.sa_counts_both(features, prototypes, groups=groups, metric=metric)
        for counts, expected in zip(both, alone, strict=True):
            for field, array in expected.to_dict().items():
                np.testing.assert_array_equal(counts.to_dict()[field], array, err_msg=str(groups))


def test_several_layers_are_counted_as_each_alone() -> None:
    rng = np.random.default_rng(8)
    pred = rng.random((2, 1, 20, 24))
    guide = psf.Guide(pred, rng.random(pred.shape) < 0.4)
    layers = [
        rng.normal(size=(2, channels, *size)).astype(dtype)
        for channels, size, dtype in ((3, (20, 24), "float32"), (6, (5, 7), "float64"))
    ]
    for groups in ("unit", "layer", 3):
        found = guide.sa_counts_of_layers(layers, groups=groups, metric="cosine")
        for both, features in zip(found, layers, strict=True):
            alone = guide.sa_counts_both(features, groups=groups, metric="cosine")
            for counts, expected in zip(both, alone, strict=True):
                np.testing.assert_array_equal(counts.tp, expected.tp)
                np.testing.assert_array_equal(counts.predicted, expected.predicted)
    assert [len(both.target.tp[0]) for both in guide.sa_counts_of_layers(layers)] == [3, 6]
    assert guide.sa_counts_of_layers([]) == []
    with pytest.raises(ValueError, match="same number of images"):
        guide.sa_counts_of_layers([*layers, layers[0][:1]])
    with pytest.raises(TypeError, match="groups"):
        guide.sa_counts_of_layers(layers, groups=2.5)  # type: ignore[arg-type]
