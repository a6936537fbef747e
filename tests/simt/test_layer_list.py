"""Several layers in one call: counts are those of each alone; small ones share a launch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import protoseg_fast as cpu  # noqa: E402
from simt.engine import arrays, package  # noqa: E402
from tunings import STRATEGIES, TUNINGS  # noqa: E402

pytestmark = pytest.mark.usefixtures("nothing_is_left")

SIZE = (40, 36)
# Channels, size and dtype of layers, those of each launch together: they have more tiles than the
# device has multiprocessors, 132.
TOGETHER = [
    [(40, (10, 9), "float32"), (36, (20, 18), "float32")],
    [(70, (5, 5), "bfloat16"), (66, (50, 18), "bfloat16")],
]
# Too few, of the guide's size, or too large.
ALONE = [(24, (3, 4), "float64"), (5, SIZE, "float32"), (3, (250, 260), "float32")]

# Features of the guide's size or others, and strategies that there are for units of that size.
SHARED = [
    (size, tuning)
    for size in (SIZE, (60, 100), (7, 9))
    for tuning in TUNINGS
    if tuning.get("strategy") != "small"
    and (size == SIZE or (tuning.get("strategy") != "streamed" and tuning.get("cluster", 1) == 1))
]


class Inputs:
    """Layers on the device (`there`) and on the CPU (`here`), and a guide of each."""

    def __init__(self, psf: Any) -> None:
        rng = np.random.default_rng(0)
        guiding = [
            rng.random((2, 2, *SIZE), dtype=np.float32),
            rng.random((2, 2, *SIZE)) < 0.3,
            rng.random((2, 1, *SIZE)) < 0.8,
        ]
        # One of each in turn: the order is the caller's.
        layers = [one for turn in zip(*TOGETHER, ALONE[:2], strict=True) for one in turn]
        layers.append(ALONE[2])
        self.here = [
            torch.from_numpy(rng.normal(size=(2, channels, *size))).to(getattr(torch, dtype))
            for channels, size, dtype in layers
        ]
        self.there = [arrays.asarray(x, "features") for x in self.here]
        self.guide = psf.Guide(*(arrays.asarray(x) for x in guiding))
        self.plain = cpu.Guide(*(torch.from_numpy(x) for x in guiding))


def features_bytes(array: arrays.ndarray) -> int:
    return int(np.prod(array.shape)) * array.item


def assert_same(found: list[Any], expected: list[Any]) -> None:
    for one, other in zip(found, expected, strict=True):
        for a, b in zip(one, other, strict=True):
            for name, values in b.to_dict().items():
                np.testing.assert_array_equal(a.to_dict()[name], values, err_msg=name)


@pytest.mark.parametrize("groups", ["unit", "layer"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_counts_are_those_of_each_layer_alone(psf: Any, groups: Any, metric: Any) -> None:
    given = Inputs(psf)
    options = {"groups": groups, "metric": metric}
    found = given.guide.sa_counts_of_layers(given.there, **options)
    assert_same(found, [given.guide.sa_counts_both(x, **options) for x in given.there])
    assert_same(found, [given.plain.sa_counts_both(x, **options) for x in given.here])
    assert_same(found, given.plain.sa_counts_of_layers(given.here, **options))
    counts = [
        both.target.to_dict() for both in given.plain.sa_counts_of_layers(given.here, **options)
    ]
    assert all(0 < c["tp"].sum() < c["predicted"].sum() for c in counts)


def test_small_layers_share_a_launch_that_reads_them_once(psf: Any) -> None:
    given = Inputs(psf)
    given.guide.sa_counts_of_layers(given.there)  # what is kept is made
    with package.traffic() as launches:
        given.guide.sa_counts_of_layers(given.there)
    listed = [one for one in launches if "layer_list_kernel" in one["kernel"]]
    assert len(listed) == len(TOGETHER)
    assert len(launches) < len(given.there) + 6
    size = sum(x.numel() * x.element_size() for x in given.here if x.shape[1] >= 36)
    read = sum(launch["reads"]["features"]["bytes"] for launch in listed)
    assert size <= read < 1.5 * size, "once, and heads and tails of planes that are not aligned"


def test_layers_and_their_units_at_given_prototypes_and_their_own(psf: Any) -> None:
    given = Inputs(psf)
    divisions = ["layer", "unit"]
    layers = [(x, divisions, None) for x in given.there]
    rng, planes = np.random.default_rng(4), (2, 2)
    means = [rng.normal(size=(*planes, given.here[1].shape[1])) for _ in range(2)]
    prototypes = psf.Prototypes(*map(arrays.asarray, (*means, np.ones(planes), np.ones(planes))))
    layers[1] = (given.there[1], divisions, prototypes)
    found = given.guide._sa_counts_of_layers(layers)
    for (features, _, prototypes), scored in zip(layers, found, strict=True):
        expected = [
            given.guide.sa_counts_both(features, prototypes, groups=groups) for groups in divisions
        ]
        assert_same(scored, expected)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(("feature_size", "tuning"), SHARED, ids=str)
def test_a_layer_and_units_share_their_sums(
    psf: Any, feature_size: tuple[int, int], tuning: dict[str, Any], dtype: str
) -> None:
    given, rng = Inputs(psf), np.random.default_rng(2)
    features = arrays.asarray(rng.normal(size=(2, 6, *feature_size)).astype(dtype), "features")
    given.guide._core.core.set_tuning(
        STRATEGIES.index(tuning.get("strategy", "automatic")),
        *(tuning.get(name, 0) for name in ("cluster", "units", "cache_bytes")),
    )
    alone = {
        groups: given.guide.sa_counts_both(features, groups=groups) for groups in (1, 3, "unit")
    }
    read = {}
    for divisions in ([1, "unit"], [3, "unit", 1], ["unit", 3], ["unit"], [1]):
        with package.traffic() as launches:
            (found,) = given.guide._sa_counts_of_layers([(features, divisions, None)])
        assert_same(found, [alone[groups] for groups in divisions])
        assert len(found) == len(divisions)
        read[str(divisions)] = sum(
            launch["reads"].get("features", {}).get("bytes", 0) for launch in launches
        )
    assert read["[1, 'unit']"] < read["[1]"] + read["['unit']"] - 0.9 * features_bytes(features)


def test_a_layer_and_units_of_other_features(psf: Any) -> None:
    given, rng = Inputs(psf), np.random.default_rng(3)
    one, other = (
        arrays.asarray(rng.normal(size=(2, 6, *SIZE)).astype(np.float32), "features")
        for _ in range(2)
    )
    ((layer,), (units,)) = given.guide._sa_counts_of_layers(
        [(one, ["layer"], None), (other, ["unit"], None)]
    )
    assert_same([layer], [given.guide.sa_counts_both(one)])
    assert_same([units], [given.guide.sa_counts_both(other, groups="unit")])


def test_without_target_and_without_layers(psf: Any) -> None:
    given = Inputs(psf)
    pred = np.random.default_rng(1).random((2, 1, *SIZE))
    guide = psf.Guide(arrays.asarray(pred))
    found = guide.sa_counts_of_layers(given.there)
    assert all(both.target is both.output for both in found)
    assert_same(found, [guide.sa_counts_both(x, groups="unit") for x in given.there])
    assert guide.sa_counts_of_layers([]) == []
    assert given.plain.sa_counts_of_layers([]) == []


def test_a_layer_that_does_not_fit_is_an_error(psf: Any) -> None:
    given = Inputs(psf)
    wrong = given.here[0][:1]
    for guide, layers in (
        (given.guide, [*given.there, arrays.asarray(wrong)]),
        (given.plain, [*given.here, wrong]),
    ):
        with pytest.raises(ValueError, match="same number of images"):
            guide.sa_counts_of_layers(layers)
    with pytest.raises(TypeError, match="on cpu, but the guide's pred is on cuda:0"):
        given.guide.sa_counts_of_layers([given.here[1], given.there[0]])
