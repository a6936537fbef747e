"""The package's own bindings and Python on the runtime: arrays "on a CUDA device" in and out."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

import protoseg_fast as cpu
from simt.engine import arrays, library

pytestmark = pytest.mark.usefixtures("nothing_is_left")

SIZE = (19, 23)


def inputs(n: int = 2, channels: int = 6, targets: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "features": rng.normal(size=(n, channels, *SIZE)).astype(np.float32),
        "pred": rng.random((n, targets, *SIZE), dtype=np.float32),
        "target": rng.random((n, targets, *SIZE)) < 0.3,
        "mask": rng.random((n, 1, *SIZE)) < 0.8,
    }


def on_device(given: dict[str, np.ndarray]) -> list[arrays.ndarray]:
    return [arrays.asarray(x, name) for name, x in given.items()]


# ---- what comes back ----


@pytest.mark.parametrize("groups", [1, 2, "unit"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_results_are_on_the_device_and_those_of_the_cpu(
    psf: Any, groups: int | str, metric: str
) -> None:
    host = inputs()
    features, *guiding = on_device(host)
    guide = psf.Guide(*guiding)
    plain = cpu.Guide(host["pred"], host["target"], host["mask"])
    options: dict[str, Any] = {"groups": groups, "metric": metric}
    both, both_cpu = (g.sa_counts_both(f, **options) for g, f in _pairs(guide, features, plain))
    results = {
        "score": [g.sa_score(f, **options) for g, f in _pairs(guide, features, plain)],
        "map": [g.segment(f, **options) for g, f in _pairs(guide, features, plain)],
        "tp": [both.target.tp, both_cpu.target.tp],
        "voxels": [both.target.voxels, both_cpu.target.voxels],
        "output": [both.output.actual, both_cpu.output.actual],
    }
    for name, (found, expected) in results.items():
        assert isinstance(found, arrays.ndarray), name
        assert np.asarray(found).dtype == expected.dtype, name
        np.testing.assert_array_equal(found, expected, err_msg=name)
    probability = guide.probability(features, **options)
    assert isinstance(probability, arrays.ndarray)
    np.testing.assert_allclose(
        probability, plain.probability(host["features"], **options), atol=1e-5
    )


def _pairs(guide: Any, features: Any, plain: Any) -> list[tuple[Any, Any]]:
    return [(guide, features), (plain, arrays.asnumpy(features))]


@pytest.mark.parametrize("empty", ["nan", "monai", "one", "zero"])
def test_scores_are_made_by_the_same_formulas(psf: Any, empty: str) -> None:
    host = inputs(n=1)
    host["features"][:, 1] = 3.0  # constant: its map is empty
    host["features"][0, 2, 0, 0] = np.nan
    host["target"][:, 1] = False
    features, *guiding = on_device(host)
    guide, plain = psf.Guide(*guiding), cpu.Guide(*list(host.values())[1:])
    expected = plain.sa_counts(host["features"], groups="unit")
    counts = guide.sa_counts(features, groups="unit")
    for name in ("dice", "iou", "precision", "recall"):
        np.testing.assert_array_equal(
            counts.score(name, empty=empty), expected.score(name, empty=empty), err_msg=name
        )
    found = guide.sa_score(features, groups="unit", empty=empty)
    np.testing.assert_array_equal(found, expected.score("dice", empty=empty))


def test_counts_and_prototypes_merge_on_the_device(psf: Any) -> None:
    host = inputs()
    features, *guiding = on_device(host)
    guide, plain = psf.Guide(*guiding), cpu.Guide(*list(host.values())[1:])
    counts, expected = (g.sa_counts(f) for g, f in _pairs(guide, features, plain))
    np.testing.assert_array_equal((counts + counts).tp, 2 * expected.tp)
    np.testing.assert_array_equal(sum([counts, counts]).dice, expected.dice)
    assert isinstance((counts + counts).tp, arrays.ndarray)
    assert repr(counts) == repr(expected)
    parts, expected = (g.prototypes(f) for g, f in _pairs(guide, features, plain))
    np.testing.assert_allclose((parts + parts).positive, expected.positive, rtol=1e-5, atol=1e-6)
    again = psf.Counts(**{name: counts.to_dict()[name] for name in counts.to_dict()})
    np.testing.assert_array_equal(again.iou, counts.iou)
    narrow = arrays.asarray(np.asarray(counts.tp).astype(np.int32))
    with pytest.raises(TypeError, match="counts on a CUDA device must be int64, got dtype int32"):
        psf.Counts(**counts.to_dict() | {"tp": narrow})
    mean = psf.mean_sa([guide.sa_score(features), guide.sa_score(features, groups=2)])
    assert isinstance(mean.value, arrays.ndarray)
    assert np.asarray(mean.count).tolist() == [[3, 3], [3, 3]]


def test_what_starts_at_zero_lies_together(psf: Any) -> None:
    """So that one call clears it; what no reference changes is there once."""
    features, *guiding = on_device(inputs())
    both = psf.Guide(*guiding).sa_counts_both(features, groups=2)
    arrays = [counts._arrays for counts in both]
    starts = [counts[name].data.ptr for counts in arrays for name in ("tp", "predicted")]
    assert np.diff(starts).tolist() == [2 * 2 * 2 * 8] * 3, "N x G x T numbers of 8 bytes each"
    for name in ("voxels", "defined"):
        assert arrays[0][name].data.ptr == arrays[1][name].data.ptr


def test_features_of_every_kind_of_strides(psf: Any) -> None:
    host = inputs()
    guiding = on_device(host)[1:]
    guide = psf.Guide(*guiding)
    expected = np.asarray(guide.sa_score(arrays.asarray(host["features"]), groups="unit"))
    last = np.moveaxis(np.ascontiguousarray(np.moveaxis(host["features"], 1, -1)), -1, 1)
    backwards = host["features"][:, :, ::-1].copy()[:, :, ::-1]
    for features in (last, backwards):
        np.testing.assert_array_equal(
            guide.sa_score(arrays.asarray(features), groups="unit"), expected
        )


class OnlyCudaInterface:
    """As Numba's arrays: no DLPack."""

    def __init__(self, array: arrays.ndarray) -> None:
        self._array = array
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": np.dtype(array.name).str,
            "data": (array.data.ptr, True),
            "strides": tuple(s * array.item for s in array.element_strides),
            "version": 3,
        }


def test_cuda_array_interface(psf: Any) -> None:
    given = on_device(inputs())
    expected = np.asarray(psf.sa_score(*given))
    found = psf.sa_score(*(OnlyCudaInterface(x) for x in given))
    assert isinstance(found, arrays.ndarray)  # for want of a library to return to
    np.testing.assert_array_equal(found, expected)


def test_a_guide_keeps_its_arrays_alive(psf: Any) -> None:
    host = inputs()
    features, *guiding = on_device(host)
    guide = psf.Guide(*guiding)
    del guiding
    gc.collect()
    # weights of another size are made of pred and mask now
    coarse = arrays.asarray(host["features"][:, :, ::2, ::2].copy())
    np.testing.assert_array_equal(
        guide.sa_counts(features).voxels, host["mask"].sum((1, 2, 3))[:, None, None]
    )
    guide.sa_score(coarse)
    assert guide.nbytes > 0


# ---- what is checked when ----


def test_shapes_and_options_are_checked_at_once_with_the_messages_of_the_cpu(psf: Any) -> None:
    host = inputs()
    features, *guiding = on_device(host)
    guide, plain = psf.Guide(*guiding), cpu.Guide(*list(host.values())[1:])
    for options in ({"groups": 4}, {"groups": 0}, {"metric": "manhattan"}):
        messages = []
        for g, f in _pairs(guide, features, plain):
            with pytest.raises(ValueError, match=r".+") as caught:
                g.sa_score(f, **options)
            messages.append(str(caught.value))
        assert messages[0] == messages[1]
    with pytest.raises(ValueError, match="features"):
        guide.segment(arrays.asarray(host["features"][:1]))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("pred", 2.5, "sigmoid"),
        ("pred", np.nan, "pred"),
        ("target", 3, "target"),
        ("mask", -1.0, "mask"),
        ("mask", np.inf, "mask"),
    ],
)
def test_values_are_checked_on_the_device(psf: Any, name: str, value: float, message: str) -> None:
    host = inputs()
    if name != "pred":
        host[name] = host[name].astype(np.float32)
    host[name][0, 0, 3, 4] = value
    features, *guiding = on_device(host)
    guide = psf.Guide(*guiding)
    scores, counts = guide.sa_score(features), guide.sa_counts(features, groups="unit")
    assert np.isnan(np.asarray(scores)).all()
    assert not np.asarray(counts.defined).any()
    assert np.isnan(np.asarray(counts.iou)).all()
    with pytest.raises(ValueError, match=message) as caught:
        guide.check()
    with pytest.raises(ValueError, match=message) as expected:
        cpu.Guide(*list(host.values())[1:])
    assert str(caught.value) == str(expected.value)


def test_check_finds_nothing_wrong_with_sound_values(psf: Any) -> None:
    _, *guiding = on_device(inputs())
    psf.Guide(*guiding).check()
    cpu.Guide(inputs()["pred"]).check()


def test_mixed_devices_are_named(psf: Any) -> None:
    host = inputs()
    features, pred, target, _ = on_device(host)
    with pytest.raises(TypeError, match=r"pred is on cuda:0, target is on cpu"):
        psf.Guide(pred, host["target"])
    with pytest.raises(TypeError, match=r"features are on cpu.*pred is on cuda:0"):
        psf.Guide(pred, target).sa_score(host["features"])
    with pytest.raises(TypeError, match=r"features are on cuda:0.*pred is on cpu"):
        psf.Guide(host["pred"]).sa_score(features)


# ---- streams and memory ----


def test_another_stream_waits_for_what_a_guide_keeps(psf: Any) -> None:
    features, *guiding = on_device(inputs())
    guide = psf.Guide(*guiding)
    expected = np.asarray(guide.sa_score(features))
    other = arrays.cuda.Stream(7)
    with other:
        found = guide.sa_score(features)
        assert arrays.last_export["stream"] == 7  # the producer is told what waits for it
    assert len(other.waited) == 1
    np.testing.assert_array_equal(found, expected)
    assert not arrays.cuda.get_current_stream().waited
    guide.sa_score(features)
    assert arrays.last_export["stream"] == 1


def test_a_prepared_call_waits_for_nothing_while_a_graph_is_captured(psf: Any) -> None:
    features, *guiding = on_device(inputs())
    guide = psf.Guide(*guiding)
    guide.sa_score(features)
    allocations = guide._core.core.allocations
    capturing = arrays.cuda.Stream(9)
    capturing.capturing = True
    with capturing:
        guide.sa_score(features)
    assert not capturing.waited
    assert guide._core.core.allocations == allocations


def test_running_out_of_memory_leaves_nothing_behind(
    psf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, *guiding = on_device(inputs())
    empty, left = arrays.empty, [0]

    def failing(shape: tuple[int, ...], dtype: str) -> arrays.ndarray:
        left[0] -= 1
        if left[0] < 0:
            raise MemoryError("no memory left on the device")
        return empty(shape, dtype)

    before = library.memory().device_allocations()
    monkeypatch.setattr(arrays, "empty", failing)
    for allowed in range(20):
        left[0] = allowed
        try:
            psf.sa_score(features, *guiding, groups=2)
            break
        except MemoryError:
            pass
        gc.collect()
        assert library.memory().device_allocations() == before
    assert 3 < allowed < 19


def test_results_are_the_same_on_every_schedule(psf: Any) -> None:
    features, *guiding = on_device(inputs())
    found = []
    for seed in range(4):
        library.memory().device_seed(seed)
        guide = psf.Guide(*guiding)
        found.append(np.asarray(guide.prototypes(features).positive).tobytes())
    assert len(set(found)) == 1
