"""What reaches memory for three problems at full size, of a part of their channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from simt.engine.package import HostGuide, traffic

SECTOR = 32
L2_BYTES = 50 << 20  # of the H100 that the runtime is unless told otherwise

# (size, feature size, channels of the problem, channels here, what the policy chooses: see
# hopper and resized in kernels/policy.cpp)
PROBLEMS: dict[str, tuple[Any, ...]] = {
    "64 x 256^2": (
        *((256, 256), (256, 256), 64, 4),
        {"strategy": "resident", "cluster": 8, "units": 2},
    ),
    "256 x 64^2 -> 256^2": ((256, 256), (64, 64), 256, 2, {"strategy": "resident", "units": 1}),
    "128 x 16^3 -> 128^3": ((128, 128, 128), (16, 16, 16), 128, 2, {"strategy": "split"}),
}


def sweep(name: str, targets: int = 1, **changed: Any) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Features of a problem, and the launches that swept them."""
    size, feature_size, _, channels, tuning = PROBLEMS[name]
    rng = np.random.default_rng(0)
    features = rng.normal(size=(1, channels, *feature_size)).astype(np.float32)
    pred = rng.random((1, targets, *size), dtype=np.float32)
    mask = rng.random((1, 1, *size)) < 0.9
    guide = HostGuide(pred, pred > 0.6, mask, **(tuning | changed))
    with traffic() as launches:
        guide.sa_counts_both(features, groups="unit")
    return features, [launch for launch in launches if "features" in launch["reads"]]


def total(launches: list[dict[str, Any]], array: str, what: str) -> int:
    """Of all launches together."""
    return sum(launch["reads"].get(array, {}).get(what, 0) for launch in launches)


def conflicts(launch: dict[str, Any]) -> int:
    return launch["shared_reads"]["conflicts"] + launch["shared_writes"]["conflicts"]


@pytest.mark.parametrize("name", ["64 x 256^2", "256 x 64^2 -> 256^2"])
def test_resident_features_are_read_once_in_whole_sectors(name: str) -> None:
    features, launches = sweep(name)
    assert len(launches) == 1
    sectors = total(launches, "features", "sectors")
    assert features.nbytes / SECTOR <= sectors <= 1.01 * features.nbytes / SECTOR
    assert total(launches, "features", "bytes") >= 0.95 * SECTOR * sectors


def test_split_features_are_read_twice_the_second_time_from_the_cache() -> None:
    name = "128 x 16^3 -> 128^3"
    features, launches = sweep(name)
    assert [launch["kernel"].count("counts") for launch in launches] == [0, 0, 1]
    for launch in launches:
        assert launch["reads"]["features"]["unique_sectors"] <= features.nbytes / SECTOR
    sums = launches[0]["reads"]["features"]
    assert sums["sectors"] <= 1.01 * features.nbytes / SECTOR
    assert sums["bytes"] >= 0.95 * SECTOR * sums["sectors"]
    assert PROBLEMS[name][2] * features[0, 0].nbytes <= L2_BYTES / 2  # one chunk


@pytest.mark.parametrize("name", PROBLEMS)
def test_sums_have_no_bank_conflicts(name: str) -> None:
    _, launches = sweep(name)
    assert conflicts(launches[0]) == 0


def test_targets_share_one_read_of_the_features_and_units_one_of_the_guide() -> None:
    one, pair, triple = (
        sweep("64 x 256^2", **options)[1] for options in ({"units": 1}, {}, {"targets": 3})
    )
    assert total(triple, "features", "sectors") == total(pair, "features", "sectors")
    # Two units share their weights; packed bits are little beside them.
    assert total(pair, "guide", "sectors") <= 0.6 * total(one, "guide", "sectors")
    assert total(pair, "guide", "unique_sectors") == total(one, "guide", "unique_sectors")
