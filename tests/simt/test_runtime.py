"""The runtime itself: every class of planted bug is found, and its sound twin runs.

The small kernels are in micro/. SIMT_FAULT says what the message must have in it.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from simt import build

SOURCES = sorted((build.HERE / "micro").glob("*.cpp"))
SEEDS = range(4)  # in order, in reverse, and two at random


def _cases(list_names: Callable[[Path], list[str]]) -> list[object]:
    return [
        pytest.param(source, name, id=f"{source.stem}-{name}")
        for source in SOURCES
        for name in list_names(source)
    ]


@pytest.mark.parametrize(("source", "name"), _cases(build.scenarios))
def test_sound_kernel_runs(program: Callable[[Path], Path], source: Path, name: str) -> None:
    for seed in SEEDS:
        result = build.run(program(source), name, seed)
        assert result.passed, result.output


@pytest.mark.parametrize(("source", "name"), _cases(lambda source: [*build.faults(source)]))
def test_planted_bug_is_found(program: Callable[[Path], Path], source: Path, name: str) -> None:
    expected = build.faults(source)[name]
    for seed in SEEDS:
        result = build.run(program(source), name, seed)
        assert not result.passed, f"not found with seed {seed}"
        assert re.search(expected, result.output), result.output


def test_message_says_where(program: Callable[[Path], Path]) -> None:
    source = build.HERE / "micro" / "races.cpp"
    output = build.run(program(source), "shared_written_by_all", 6).output
    line = 1 + source.read_text()[: source.read_text().index("// the same value")].count("\n")
    assert "kernel (anonymous namespace)::write_write<true>, block (0,0,0), thread (" in output
    assert f"at races.cpp:{line}" in output
    assert "seed 6" in output


def test_same_seed_same_schedule(program: Callable[[Path], Path]) -> None:
    source = build.HERE / "micro" / "races.cpp"
    outputs = [build.run(program(source), "shared_written_by_all", s).output for s in (6, 6, 7)]
    assert outputs[0] == outputs[1]
    assert outputs[0] != outputs[2]


def test_header_that_changes_is_compiled_again(tmp_path: Path) -> None:
    tree = build.copy_tree(tmp_path / "tree")
    header = tree / "cuda" / "answer.cuh"
    source = tmp_path / "answer.cpp"
    source.write_text(
        '#include <simt/scenario.hpp>\n#include "answer.cuh"\n'
        "SIMT_SCENARIO(answer) { SIMT_EXPECT_EQUAL(answer, 42); }\n"
    )
    for answer in (41, 42, 43):
        header.write_text(f"constexpr int answer = {answer};\n")
        assert build.run(build.program(source, tree=tree), "answer").passed == (answer == 42)


def test_compiler_error_is_shown(tmp_path: Path) -> None:
    source = tmp_path / "broken.cpp"
    source.write_text("#include <simt/scenario.hpp>\n__global__ void kernel(int n) { return m; }\n")
    with pytest.raises(build.BuildError, match=r"broken\.cpp:2.*'m' was not declared"):
        build.program(source)


def test_program_that_hangs_is_stopped(tmp_path: Path) -> None:
    source = tmp_path / "hangs.cpp"
    source.write_text("#include <simt/scenario.hpp>\nSIMT_SCENARIO(hangs) { for (;;) {} }\n")
    result = build.run(build.program(source), "hangs", timeout=0.5)
    assert not result.passed
    assert "time limit" in result.output


def test_nothing_of_the_compilers_own_runtime_is_linked(program: Callable[[Path], Path]) -> None:
    executable = program(SOURCES[0])
    linked = subprocess.run(["ldd", executable], capture_output=True, text=True, check=True).stdout
    assert "tsan" not in linked
    assert "ubsan" not in linked
