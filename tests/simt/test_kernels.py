"""Every kernel on its own, against loops written directly: kernels/*.cpp."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from simt import build

SOURCES = [path for path in sorted((build.HERE / "kernels").glob("*.cpp")) if build.scenarios(path)]
SCENARIOS = [(path, name) for path in SOURCES for name in build.scenarios(path)]


@pytest.mark.parametrize(
    ("source", "name"), SCENARIOS, ids=[f"{path.stem}-{name}" for path, name in SCENARIOS]
)
def test_kernel(program: Callable[[Path], Path], source: Path, name: str) -> None:
    for seed in range(4):
        result = build.run(program(source), name, seed)
        assert result.passed, result.output
