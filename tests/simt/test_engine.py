"""The CPU engine's property tests over the CUDA engine on the host, with every strategy forced."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from checks import check
from problems import Problem, problems
from simt.engine import library
from simt.engine.package import HostGuide
from tunings import TUNINGS, possible


@settings(suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow], deadline=None)
@given(problem=problems(), tuning=st.sampled_from(TUNINGS), seed=st.integers(0, 1000))
def test_engine_matches_the_specification(
    problem: Problem, tuning: dict[str, Any], seed: int
) -> None:
    assume(possible(problem, tuning))
    library.memory().device_seed(seed)
    check(problem, lambda *arrays: HostGuide(*arrays, **tuning))
