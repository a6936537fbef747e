"""The CPU engine's property tests over the CUDA engine on the host, with every strategy forced."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from checks import check, group_count
from problems import Problem, problems
from simt import engine_simt

TUNINGS: list[dict[str, Any]] = [
    {},
    {"strategy": "resident"},
    {"strategy": "resident", "units": 3},
    {"strategy": "resident", "cluster": 4, "units": 2},
    {"strategy": "streamed"},
    {"strategy": "streamed", "units": 4},
    {"strategy": "split", "units": 1},
    {"strategy": "split", "units": 4, "cache_bytes": 1},
    {"strategy": "small"},
]


def possible(problem: Problem, tuning: dict[str, Any]) -> bool:
    """Whether a strategy can be forced; groups are always split."""
    strategy = tuning.get("strategy", "automatic")
    if group_count(problem) != problem.features.shape[1]:
        return True
    same_size = problem.features.shape[2:] == problem.pred.shape[2:]
    if strategy == "small":
        return same_size and bool(np.prod(problem.pred.shape[2:]) <= 256)
    if strategy == "streamed":
        return same_size
    return strategy != "resident" or same_size or tuning.get("cluster", 1) == 1


@settings(suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow], deadline=None)
@given(problem=problems(), tuning=st.sampled_from(TUNINGS), seed=st.integers(0, 1000))
def test_engine_matches_the_specification(
    problem: Problem, tuning: dict[str, Any], seed: int
) -> None:
    assume(possible(problem, tuning))
    engine_simt.set_seed(seed)
    check(problem, lambda *arrays: engine_simt.Guide(*arrays, **tuning))
