"""Programs of scenarios, compiled side by side before the first of them runs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from simt import build


@pytest.fixture(scope="session")
def program(request: pytest.FixtureRequest) -> Callable[[Path], Path]:
    """Compiles a source to a program, at most once."""
    calls = [getattr(item, "callspec", None) for item in request.session.items]
    sources = {call.params["source"] for call in calls if call and "source" in call.params}
    build.forget_old()
    build.compile_all(unit for source in sorted(sources) for unit in build.units_of(source))
    return functools.cache(build.program)
