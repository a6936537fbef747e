"""Sweeps over cohorts: every unit of every layer over every case, resumable, to Parquet."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from protoseg_fast.cohort.config import DEPENDENCIES, SweepConfig, SweepError
from protoseg_fast.cohort.layouts import Case, find_cases

if TYPE_CHECKING:
    from protoseg_fast.cohort.run import SweepResult, sweep

__all__ = [
    "DEPENDENCIES",
    "Case",
    "SweepConfig",
    "SweepError",
    "SweepResult",
    "find_cases",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name in ("sweep", "SweepResult"):  # need torch
        return getattr(import_module("protoseg_fast.cohort.run"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
