"""Hypothesis profiles, the build in pytest's header, and fixtures over what the engine offers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# Read when OpenMP's runtime is loaded: threads that spin while they wait slow down the tests of
# the other processes of `pytest -n auto`.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
from hypothesis import HealthCheck, settings

import protoseg_fast as psf
from problems import DTYPES

HERE = Path(__file__).parent

_COMMON = {
    "deadline": None,  # shared machines are noisy: no test is timed
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}
settings.register_profile("default", max_examples=80, **_COMMON)
settings.register_profile("ci", max_examples=80, derandomize=True, **_COMMON)
settings.register_profile("quick", max_examples=15, derandomize=True, **_COMMON)
settings.register_profile("thorough", max_examples=2000, **_COMMON)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "default")
)


def pytest_report_header() -> list[str]:
    """Say which build is tested."""
    config = psf.build_config()
    return [
        f"protoseg_fast {config['version']}: {config['isa']} of {config['available_isas']}, "
        f"{config['compiler']}, {config['threads']}, {config['cuda']}"
    ]


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """A process for each core, up to eight; this one alone for single files, --pdb and -s."""
    seen = config.getoption("usepdb") or config.getoption("capture") == "no"
    if seen or any(".py" in argument for argument in config.args):
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(8, cores or 1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Mark the slow tests of the demo, and what one process of `pytest -n` should run together."""
    for item in items:
        if item.path.name == "test_demo.py" and "result" in item.fixturenames:
            item.add_marker(pytest.mark.slow)  # it trains a network first
        part = item.path.relative_to(HERE).parts[0]  # a file, or a folder whose fixtures are shared
        if part != "simt":  # what its tests share is on disk
            item.add_marker(pytest.mark.xdist_group(part))


@pytest.fixture(params=psf.available_isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set in turn."""
    previous = psf.build_config()["isa"]
    psf.set_isa(request.param)
    yield request.param
    psf.set_isa(previous)


@pytest.fixture(params=DTYPES)
def dtype(request: pytest.FixtureRequest) -> str:
    """Each dtype that features may have."""
    return str(request.param)
