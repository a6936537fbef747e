"""Programs of scenarios, compiled side by side before the first of them runs; and the package."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from simt import build
from simt.engine import library, package


@pytest.fixture(scope="session")
def program(request: pytest.FixtureRequest) -> Callable[[Path], Path]:
    """Compiles a source to a program, at most once."""
    calls = [getattr(item, "callspec", None) for item in request.session.items]
    sources = {call.params["source"] for call in calls if call and "source" in call.params}
    build.forget_old()
    build.compile_all(unit for source in sorted(sources) for unit in build.units_of(source))
    return functools.cache(build.program)


@pytest.fixture(scope="session")
def psf() -> Any:
    """The package with the CUDA engine on the runtime."""
    return package.load()


@pytest.fixture
def nothing_is_left() -> Iterator[None]:
    """Every test gives back the device memory it took."""
    gc.collect()
    before = library.memory().device_allocations()
    yield
    gc.collect()
    assert library.memory().device_allocations() == before
