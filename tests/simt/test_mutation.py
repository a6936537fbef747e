"""Every bug planted into the kernels (mutants/) makes its test fail.

Each is compiled on its own. Without SIMT_MUTATIONS=all, every fortieth is planted, and one at
least of every file of the kernels.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pytest

from simt import build, mutation
from simt.mutation import Mutation


def _load(path: Path) -> list[Mutation]:
    spec = importlib.util.spec_from_file_location(f"mutants_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return list(module.MUTATIONS)


def _sample(mutations: Sequence[Mutation]) -> list[Mutation]:
    one_of_file = {planted.file: planted.id for planted in reversed(mutations)}
    ids = {*one_of_file.values(), *(planted.id for planted in mutations[::40])}
    return [planted for planted in mutations if planted.id in ids]


ALL = [m for path in sorted((build.HERE / "mutants").glob("*.py")) for m in _load(path)]
MUTATIONS = ALL if os.environ.get("SIMT_MUTATIONS") == "all" else _sample(ALL)


@pytest.fixture(scope="session")
def passes() -> Callable[[str], build.Result]:
    """How a test ends without a bug; run once."""
    return cache(lambda test: mutation.run_test(test, build.ROOT))


@pytest.mark.slow
@pytest.mark.parametrize("planted", MUTATIONS, ids=lambda planted: planted.id)
def test_mutation_is_found(planted: Mutation, passes: Callable[[str], build.Result]) -> None:
    sound = passes(planted.test)
    assert sound.passed, f"fails without the bug:\n{sound.output}"
    result = mutation.outcome(planted)
    assert not result.passed, f"{planted.test} passes with the bug '{planted.name}' planted"


def test_mutations_have_names_of_their_own() -> None:
    names = [planted.id for planted in ALL]
    assert len(names) == len(set(names))


KERNEL = re.compile(r"__global__[^;{]*?\b(\w+_kernel)\(")


@pytest.mark.parametrize("file", sorted((build.ROOT / "cuda").glob("*.cuh")), ids=lambda f: f.name)
def test_mutations_are_eight_or_more_for_every_kernel(file: Path) -> None:
    kernels = KERNEL.findall(file.read_text())
    planted = sum(build.ROOT / planted.file == file for planted in ALL)
    assert planted >= 8 * len(kernels), f"{file.name}: {planted} bugs for {kernels}"


@pytest.mark.parametrize("planted", ALL, ids=lambda planted: planted.id)
def test_mutation_has_a_place_and_a_test(planted: Mutation) -> None:
    assert mutation.changed(planted)


# ---- The harness itself, on a kernel that is there for this ----

DEMO = mutation.mutants(
    "cuda/demo.cuh",
    "demo/demo.cpp:sums",
    {
        "barrier removed": ("  __syncthreads();\n", ""),
        "shuffle starts too low": ("delta = 16;", "delta = 8;"),
        "wrong mask": ("0xffffffffu", "0x0000ffffu"),
        "accumulator uninitialised": ("double sum = 0.0;", "double sum;"),
        "one element too many": ("i < p.length", "i <= p.length"),
        "one element left out": ("i < p.length", "i < p.length - 1"),
        "return before the barrier": (
            "  if (threadIdx.x % 32 == 0) of_warp",
            "  if (threadIdx.x > 64) return;\n  if (threadIdx.x % 32 == 0) of_warp",
        ),
        "wrong stride": ("i += static_cast<int>(blockDim.x)", "i += 32"),
    },
)


@pytest.fixture(scope="module")
def demo_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = build.copy_tree(tmp_path_factory.mktemp("demo") / "tree")
    (root / "cuda" / "demo.cuh").write_text(
        (build.HERE / "demo" / "kernel" / "demo.cuh").read_text()
    )
    return root


def test_mutation_demo_is_sound(demo_root: Path) -> None:
    result = mutation.run_test("demo/demo.cpp:sums", demo_root)
    assert result.passed, result.output


@pytest.mark.parametrize("demo", DEMO, ids=lambda demo: demo.id)
def test_mutation_of_demo_is_found(demo_root: Path, demo: Mutation) -> None:
    assert not mutation.outcome(demo, demo_root).passed


def test_mutation_that_changes_no_result_is_not_found(demo_root: Path) -> None:
    harmless = Mutation(
        "harmless", "cuda/demo.cuh", "double sum = 0.0;", "double sum = 0;", "demo/demo.cpp:sums"
    )
    assert mutation.outcome(harmless, demo_root).passed


@pytest.mark.parametrize(("old", "count"), [("no such text", 0), ("threadIdx", 4)])
def test_mutation_whose_text_is_not_there_once(demo_root: Path, old: str, count: int) -> None:
    lost = Mutation("lost", "cuda/demo.cuh", old, "", "demo/demo.cpp:sums")
    with pytest.raises(LookupError, match=f"stands {count} times in cuda/demo.cuh"):
        mutation.outcome(lost, demo_root)


def test_mutation_that_does_not_compile(demo_root: Path) -> None:
    broken = Mutation("broken", "cuda/demo.cuh", "sum = 0.0", "sum = zero", "demo/demo.cpp:sums")
    with pytest.raises(build.BuildError, match="zero"):
        mutation.outcome(broken, demo_root)


def test_mutation_whose_scenario_is_not_there(demo_root: Path) -> None:
    lost = Mutation("lost", "cuda/demo.cuh", "sum = 0.0", "sum = 1.0", "demo/demo.cpp:products")
    with pytest.raises(LookupError, match="no scenario 'products'"):
        mutation.outcome(lost, demo_root)
