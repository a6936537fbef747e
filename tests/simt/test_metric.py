"""A metric is written in rule.hpp, and in reference.py: kernels and drivers know none by name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from simt import build, mutation
from simt.mutation import Mutation

# What a metric touches beside rule.hpp: see "To add something" in CONTRIBUTING.md.
NAMED = {
    "cpp/src/engine.cpp",  # its name
    "cpp/src/validate.cpp",  # that it has a temperature
    "cpp/src/gradient_rows.hpp",  # its derivatives
}


def test_no_kernel_and_no_driver_names_a_metric() -> None:
    sources = [path for part in ("cpp/src", "cuda") for path in (build.ROOT / part).glob("*.[ch]*")]
    named = {
        str(path.relative_to(build.ROOT))
        for path in sources
        if re.search(r"Metric::[a-z]", path.read_text())
    }
    assert named <= NAMED


# Another rule instead of the euclidean one: the boundary a third of the way, not half.
ANOTHER = {
    "of units": ("p.reference + (p.positive + p.negative) / 2.0;\n  return", "units.cpp:of_halves"),
    "of groups": (
        "(p.reference + (p.positive + p.negative) / 2.0);\n}",
        "boundary.cpp:of_wide_groups",
    ),
}


@pytest.mark.parametrize("name", ANOTHER)
def test_kernels_follow_another_rule(name: str, tmp_path: Path) -> None:
    old, scenario = ANOTHER[name]
    new = old.replace("(p.positive + p.negative) / 2.0", "(p.positive + 2.0 * p.negative) / 3.0")
    rule = Mutation(name, "cpp/include/protoseg/rule.hpp", old, new, f"kernels/{scenario}")
    tree = mutation.plant(rule, tmp_path / "tree")
    result = mutation.run_test(rule.test, tree, alone=True)
    assert result.passed, result.output
