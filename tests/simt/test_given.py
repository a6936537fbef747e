"""Maps at given prototypes on the runtime: those of the CPU, from one read of the features."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import protoseg_fast as cpu
from simt.engine import arrays, package
from tunings import STRATEGIES

pytestmark = pytest.mark.usefixtures("nothing_is_left")

SIZE = (19, 23)


def inputs(feature_size: tuple[int, int] = SIZE, dtype: str = "float32") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "features": rng.normal(size=(2, 6, *feature_size)).astype(dtype),
        "pred": rng.random((2, 2, *SIZE), dtype=np.float32),
        "target": rng.random((2, 2, *SIZE)) < 0.3,
        "mask": rng.random((2, 1, *SIZE)) < 0.8,
    }


def on_device(given: dict[str, np.ndarray]) -> list[arrays.ndarray]:
    return [arrays.asarray(x, name) for name, x in given.items()]


def given_pair(
    psf: Any, channels: int = 6, targets: int = 2, images: int = 2, seed: int = 1
) -> tuple[Any, Any]:
    """Prototypes that are those of no image at hand, on the device and in memory of the CPU."""
    rng = np.random.default_rng(seed)
    means = [rng.normal(size=(images, targets, channels)) for _ in range(2)]
    parts = [*means, np.ones((images, targets)), np.ones((images, targets))]
    return psf.Prototypes(*(arrays.asarray(x) for x in parts)), cpu.Prototypes(*parts)


def assert_same_counts(found: Any, expected: Any) -> None:
    for name, values in expected.to_dict().items():
        np.testing.assert_array_equal(found.to_dict()[name], values, err_msg=name)


@pytest.mark.parametrize("groups", ["layer", 2, "unit"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("feature_size", [SIZE, (130, 70), (9, 40)], ids=str)
def test_maps_at_given_prototypes_are_those_of_the_cpu(
    psf: Any, feature_size: tuple[int, int], dtype: str, metric: str, groups: int | str
) -> None:
    host = inputs(feature_size, dtype)
    if groups == 2:  # as channels-last
        host["features"] = np.moveaxis(np.moveaxis(host["features"], 1, -1).copy(), -1, 1)
    features, *guiding = on_device(host)
    guide, plain = psf.Guide(*guiding), cpu.Guide(*list(host.values())[1:])
    there, here = given_pair(psf)
    options: dict[str, Any] = {"groups": groups, "metric": metric}
    both = guide.sa_counts_both(features, there, **options)
    expected = plain.sa_counts_both(host["features"], here, **options)
    for one, other in zip(both, expected, strict=True):
        assert_same_counts(one, other)
    assert_same_counts(guide.sa_counts(features, there, **options), expected.target)
    assert 0 < expected.target.tp.sum() < expected.target.predicted.sum()
    found = guide.segment(features, there, **options)
    assert isinstance(found, arrays.ndarray)
    np.testing.assert_array_equal(found, plain.segment(host["features"], here, **options))


@pytest.mark.parametrize("groups", ["layer", "unit"])
def test_at_given_prototypes_features_are_read_once(psf: Any, groups: str) -> None:
    features, *guiding = on_device(inputs())
    guide, (there, _) = psf.Guide(*guiding), given_pair(psf)
    guide.sa_counts(features, there, groups=groups)  # what is kept is made
    # chunks of one plane, were there a second read; a strategy that is for two reads
    guide._core.core.set_tuning(STRATEGIES.index("resident"), 1, 1, 1)
    with package.traffic() as launches:
        guide.sa_counts(features, there, groups=groups)
    read = [launch["reads"]["features"]["bytes"] for launch in launches]
    assert [launch["kernel"].partition("<")[0].rpartition("::")[2] for launch in launches] == [
        *(["unit_boundary_kernel", "unit_counts_kernel"] if groups == "unit" else []),
        *(["group_boundary_kernel", "project_kernel"] if groups == "layer" else []),
    ]
    whole = inputs()["features"].nbytes
    assert read[0] <= whole / np.prod(SIZE) * 2, "one voxel of a plane, for each target"
    assert whole <= read[1] < 2 * whole, "more than once where planes are not aligned"


def test_prototypes_of_parts_merge_and_are_given_on_the_device(psf: Any) -> None:
    host = inputs()
    (features, *guiding), plain = on_device(host), cpu.Guide(*list(host.values())[1:])
    guide = psf.Guide(*guiding)
    merged = guide.prototypes(features) + guide.prototypes(features)
    expected = plain.sa_counts(host["features"], plain.prototypes(host["features"]), groups="unit")
    assert_same_counts(guide.sa_counts(features, merged, groups="unit"), expected)


def test_undefined_prototypes_and_features_that_are_not_finite(psf: Any) -> None:
    host = inputs()
    host["features"][0, 3, 5, 6] = np.nan
    host["features"][1, 4, 5, 6] = np.inf
    features, *guiding = on_device(host)
    guide, plain = psf.Guide(*guiding), cpu.Guide(*list(host.values())[1:])
    means = [np.asarray(x) for x in (given_pair(psf)[1].to_dict()).values()]
    means[0][1, 0, 2] = np.nan
    means[1][1, 1, 4] = means[0][1, 1, 4]
    there = psf.Prototypes(*(arrays.asarray(x) for x in means))
    for groups in ("layer", 3, "unit"):
        expected = plain.sa_counts(host["features"], cpu.Prototypes(*means), groups=groups)
        assert expected.defined.sum() == expected.defined.size - 1
        assert_same_counts(guide.sa_counts(features, there, groups=groups), expected)


def test_values_are_checked_at_given_prototypes_too(psf: Any) -> None:
    host = inputs()
    host["pred"][0, 0, 3, 4] = 2.5
    features, *guiding = on_device(host)
    guide, (there, _) = psf.Guide(*guiding), given_pair(psf)
    for groups in ("layer", "unit"):
        counts = guide.sa_counts(features, there, groups=groups)
        assert not np.asarray(counts.defined).any()
        assert not np.asarray(counts.predicted).any()
        assert not np.asarray(guide.segment(features, there, groups=groups)).any()


def test_prototypes_that_do_not_fit(psf: Any) -> None:
    host = inputs()
    features, *guiding = on_device(host)
    guide, plain = psf.Guide(*guiding), cpu.Guide(*list(host.values())[1:])
    for wrong in ({"channels": 5}, {"targets": 1}, {"images": 1}):
        there, here = given_pair(psf, **wrong)
        for method in ("sa_counts", "sa_counts_both", "segment"):
            messages = []
            for g, f, prototypes in ((guide, features, there), (plain, host["features"], here)):
                with pytest.raises(ValueError, match=r"shape \(N, T, C\)") as caught:
                    getattr(g, method)(f, prototypes)
                messages.append(str(caught.value))
            assert messages[0] == messages[1]
    there, here = given_pair(psf)
    with pytest.raises(TypeError, match=r"prototypes are on cpu, .*pred is on cuda:0"):
        guide.sa_counts(features, psf.Prototypes(*here.to_dict().values()))
    with pytest.raises(TypeError, match=r"prototypes are on cuda:0, .*pred is on cpu"):
        psf.Guide(host["pred"]).segment(host["features"], there)
    narrow = [arrays.asarray(x.astype(np.float32)) for x in here.to_dict().values()]
    with pytest.raises(TypeError, match="prototypes on a CUDA device must be float64, got dtype"):
        psf.Prototypes(*narrow)
    guide.sa_counts(features, there)


@pytest.mark.parametrize("given", [False, True])
def test_several_divisions_of_the_same_features(psf: Any, given: bool) -> None:
    host = inputs()
    features, *guiding = on_device(host)
    guide, plain = psf.Guide(*guiding), cpu.Guide(*list(host.values())[1:])
    there, here = given_pair(psf) if given else (None, None)
    divisions = ["layer", "unit", 2]
    found = guide._sa_counts_of_layers([(features, divisions, there)])[0]
    (expected,) = plain._sa_counts_of_layers([(host["features"], divisions, here)])
    for one, other in zip(found, expected, strict=True):
        assert_same_counts(one.target, other.target)
        assert_same_counts(one.output, other.output)
    (without,) = psf.Guide(guiding[0])._sa_counts_of_layers([(features, divisions, there)])
    assert all(one.target is one.output for one in without)
    assert guide._sa_counts_of_layers([(features, [], there)]) == [[]]
