"""Memory of sweeps over cohorts: copies of features, and what happens where it runs out."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import cohorts
import protoseg_fast as psf
from protoseg_fast.cohort import Case, SweepError

OPTIONS = {"activation": "softmax", "workers": 0, "progress": "quiet", "threads": 1}
#: Of float32 features of both convolutions.
NEEDED = 4 * (4 + 3) * int(np.prod(cohorts.SIZE))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return cohorts.decathlon(tmp_path / "data", 2)


def tables(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob("tables/*")}


def test_the_network_runs_once_if_the_features_fit(data: Path, tmp_path: Path) -> None:
    found = []
    for budget, passes in ((None, 2), (NEEDED, 2), (NEEDED - 1, 4), (0, 4)):
        model, out = cohorts.Small(), tmp_path / str(budget)
        options = OPTIONS if budget is None else {**OPTIONS, "memory_budget": budget}
        psf.sweep(model, data, out=out, **options)
        assert model.passes == passes
        found.append(tables(out))
    assert len(found[0]) == 2
    assert all(other == found[0] for other in found[1:])


def test_windows_run_once_if_their_features_fit(data: Path, tmp_path: Path) -> None:
    found = []
    for budget, passes in ((2**30, 1), (0, 3)):
        model, out = cohorts.Small(), tmp_path / str(budget)
        psf.sweep(model, data, out=out, roi_size=(16, 16, 16), memory_budget=budget, **OPTIONS)
        windows = 2 * 3 * 1  # of (24, 32, 16), with overlap
        assert model.passes == 2 * windows * passes
        found.append(tables(out))
    assert found[0] == found[1]


def test_a_budget_below_zero_is_refused(data: Path, tmp_path: Path) -> None:
    for budget in (-1, float("nan")):
        with pytest.raises(SweepError, match="memory_budget must be at least 0"):
            psf.sweep(cohorts.small(), data, out=tmp_path / "out", memory_budget=budget, **OPTIONS)


def test_where_memory_runs_out_features_are_not_copied(data: Path, tmp_path: Path) -> None:
    psf.sweep(cohorts.Small(), data, out=tmp_path / "plenty", **OPTIONS)
    model, events = cohorts.Small(passes_without_memory=1), []
    psf.sweep(model, data, out=tmp_path / "out", log=events.append, **OPTIONS)
    assert model.passes == (1 + 2) + 1
    assert [event.get("roi_size") for event in events] == [None, None]
    assert tables(tmp_path / "out") == tables(tmp_path / "plenty")


def test_where_it_runs_out_again_windows_are_smaller(data: Path, tmp_path: Path) -> None:
    model, events = cohorts.Small(largest=np.prod(cohorts.SIZE) / 2), []
    psf.sweep(model, data, out=tmp_path / "out", log=events.append, **OPTIONS)
    assert [event["roi_size"] for event in events] == [[16, 16, 16]] * 2
    failing = cohorts.Small(largest=0)
    result = psf.sweep(failing, data, out=tmp_path / "failing", **OPTIONS)
    assert all("MemoryError" in reason for reason in result.failures.values())
    assert len(result.failures) == 2
    assert failing.passes == 2 * 3


@pytest.mark.slow
def test_memory_does_not_grow(tmp_path: Path) -> None:
    """The last 100 cases are no higher than the first 100, within 5 %."""
    image, label = cohorts.volume(0)
    cases = [Case(f"{i:03d}", lambda: image[None].copy(), lambda: label) for i in range(200)]
    held: list[int] = []

    def resident(event: dict) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        held.append(pages * os.sysconf("SC_PAGE_SIZE"))

    psf.sweep(cohorts.small(), cases, out=tmp_path / "out", log=resident, **OPTIONS)
    assert max(held[100:]) <= 1.05 * max(held[:100])
