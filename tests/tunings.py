"""How the CUDA engine can be made to go over memory: for tests on the host and on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from checks import group_count
from problems import Problem

#: In the order of `Strategy` in cuda.hpp.
STRATEGIES = ("automatic", "small", "resident", "streamed", "split")

TUNINGS: list[dict[str, Any]] = [
    {},
    {"strategy": "small"},
    {"strategy": "resident", "units": 1},
    {"strategy": "resident", "units": 4},
    {"strategy": "resident", "cluster": 2, "units": 2},
    {"strategy": "resident", "cluster": 8, "units": 3},
    {"strategy": "streamed", "units": 2},
    {"strategy": "split", "units": 1, "cache_bytes": 1},
    {"strategy": "split", "units": 4},
]


def possible(problem: Problem, tuning: dict[str, Any]) -> bool:
    """Whether a strategy can be forced; groups of several channels are always split."""
    strategy = tuning.get("strategy", "automatic")
    if group_count(problem) != problem.features.shape[1]:
        return True
    same_size = problem.features.shape[2:] == problem.pred.shape[2:]
    if strategy == "small":
        return same_size and bool(np.prod(problem.pred.shape[2:]) <= 256)
    if strategy == "streamed":
        return same_size
    return strategy != "resident" or same_size or tuning.get("cluster", 1) == 1
