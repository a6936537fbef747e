"""Same input, same bits: for every instruction set and number of threads; and bounded memory."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from threadpoolctl import threadpool_limits

import protoseg_fast as psf
from problems import DTYPES, Problem, cast, problems


def everything(problem: Problem) -> list[np.ndarray]:
    """Every result of a problem, as arrays."""
    guide = psf.Guide(*problem.guide)
    options = problem.options | problem.resize
    counts = guide.sa_counts(problem.features, **options)
    prototypes = guide.prototypes(problem.features, **problem.resize)
    maps = [guide.segment(problem.features, **options)]
    maps.append(guide.probability(problem.features, **options))
    parts = [*counts.to_dict().values(), *prototypes.to_dict().values(), *maps]
    return [np.asarray(x) for x in parts]


def assert_same_bits(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        assert a.tobytes() == b.tobytes()


def wide_problem(dtype: str) -> Problem:
    """More voxels than a segment and more channels than a tile, so that all loops are split."""
    rng = np.random.default_rng(9)
    size = (330, 341)
    features = cast(rng.normal(size=(1, 10, *size)) * 50 + 7, dtype)
    pred = rng.random((1, 2, *size), dtype=np.float32)
    mask = rng.random((1, 1, *size), dtype=np.float32)
    return Problem(features, pred, pred > 0.5, mask, {"groups": 5, "metric": "cosine"})


def test_at_least_two_instruction_sets_on_x86() -> None:
    if "avx2" not in psf.build_config()["compiled_isas"]:
        pytest.skip("not an x86-64 build")
    assert len(psf.available_isas()) >= 2


@given(problems())
def test_every_isa_and_thread_count_gives_the_same_bits(problem: Problem) -> None:
    previous = psf.build_config()["isa"]
    results = []
    try:
        for isa in psf.available_isas():
            psf.set_isa(isa)
            for threads in (1, 2, 5):
                with threadpool_limits(threads, user_api="openmp"):
                    results.append(everything(problem))
    finally:
        psf.set_isa(previous)
    for result in results[1:]:
        assert_same_bits(result, results[0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("feature_size", [None, (40, 700)])
def test_split_loops_give_the_same_bits(dtype: str, feature_size: tuple[int, ...] | None) -> None:
    problem = wide_problem(dtype)
    if feature_size is not None:
        values = np.random.default_rng(2).normal(size=(1, 10, *feature_size))
        problem.features = cast(values, dtype)
    test_every_isa_and_thread_count_gives_the_same_bits.hypothesis.inner_test(problem)
    problem.options = {"groups": "unit", "metric": "euclidean"}
    test_every_isa_and_thread_count_gives_the_same_bits.hypothesis.inner_test(problem)


def test_threads_are_those_of_openmp() -> None:
    from threadpoolctl import threadpool_info

    if psf.build_config()["threads"] != "OpenMP":
        pytest.skip("built without OpenMP")
    assert any(pool["user_api"] == "openmp" for pool in threadpool_info())
    code = (
        "import os, threading, numpy as np, protoseg_fast as psf\n"
        "f = np.random.rand(1, 64, 128, 128).astype('f'); p = np.random.rand(1, 1, 128, 128)\n"
        "psf.sa_score(f, p, p > .5, groups='unit')\n"
        "print(len(os.listdir('/proc/self/task')))\n"
    )
    for threads in (1, 3):
        run = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert int(run.stdout) == threads


def test_python_threads_share_a_guide() -> None:
    problem = wide_problem("float32")
    guide = psf.Guide(*problem.guide)
    rng = np.random.default_rng(1)
    layers = [rng.normal(size=(1, 4, s, s)).astype(np.float32) for s in (20, 31, 77, 20, 31)]
    expected = [psf.Guide(*problem.guide).sa_score(x, groups="unit") for x in layers]
    found: list[Any] = [None] * len(layers)

    def work(i: int) -> None:
        found[i] = guide.sa_score(layers[i], groups="unit")

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(layers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_same_bits(found, expected)


FORK = """
import multiprocessing
import numpy as np, protoseg_fast as psf

def score(): return psf.sa_score(f, p, p > 0.5, groups="unit").tobytes()

rng = np.random.default_rng(0)
f, p = rng.normal(size=(1, 64, 128, 128)).astype("f"), rng.random((1, 1, 128, 128))
expected = score()  # starts the parent's threads, which the child will not have
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.apply_async(score).get(timeout=60) == expected
print("same")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_can_score() -> None:
    run = subprocess.run(
        [sys.executable, "-c", FORK], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.stdout == "same\n", run.stderr


MEMORY = """
import resource, sys
import numpy as np, torch
import protoseg_fast as psf

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

size, feature_size, channels, groups = {size}, {feature_size}, {channels}, {groups!r}
# pages of their own, as real arrays have, but one plane only
pred = np.empty((1, 1, *size), np.float32); pred[:] = np.linspace(0, 1, size[-1], dtype=np.float32)
target = pred > 0.5
plane = np.empty((1, 1, *feature_size), np.float32)
plane[:] = np.sin(np.arange(plane.size).reshape(plane.shape)) + 1
features = np.broadcast_to(plane, (1, channels, *feature_size))
small = np.ones((1, 1, 8, 8), np.float32) * 0.5
psf.sa_score(small, small, small > 0)
before = peak()
score = psf.sa_score(features, pred, target, groups=groups)
extra = (peak() - before) / 2**20
assert score.shape[1] == (1 if groups == "layer" else channels)
print(extra)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "feature_size", "channels", "groups"),
    [
        ((512, 512, 512), (512, 512, 512), 1, "unit"),
        ((512, 512, 512), (512, 512, 512), 2, "layer"),
        ((512, 512, 512), (64, 64, 64), 1, "unit"),
        ((512, 512, 512), (128, 128, 128), 2, "layer"),
        ((512, 512), (512, 512), 512, "unit"),
        ((512, 512), (512, 512), 512, "layer"),
        ((512, 512), (128, 128), 512, "unit"),
    ],
)
def test_extra_memory(
    size: tuple[int, ...], feature_size: tuple[int, ...], channels: int, groups: str
) -> None:
    code = MEMORY.format(size=size, feature_size=feature_size, channels=channels, groups=groups)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) <= 64


@pytest.mark.slow
def test_more_than_2_to_31_elements() -> None:
    # 2^31 + 2^17 elements through strides: planes repeat every 1024 channels' worth of memory
    size, channels = (1024, 1024), 2**11 + 2**7 // 2
    rng = np.random.default_rng(0)
    pred = rng.random((1, 1, *size), dtype=np.float32)
    base = rng.normal(size=(1, 3, *size)).astype(np.float16)
    last = np.lib.stride_tricks.as_strided(
        base[:, :1], (1, channels, *size), (0, 0, *base.strides[2:])
    )
    assert last.size > 2**31
    guide = psf.Guide(pred, pred > 0.7)
    expected = guide.sa_counts(base[:, :1], groups="unit")
    found = guide.sa_counts(last, groups="unit")
    assert (found.tp == expected.tp).all()
    assert (found.predicted == expected.predicted).all()


@pytest.mark.slow
def test_more_than_2_to_31_voxels_in_a_plane(tmp_path: Any) -> None:
    # one broadcast value per row, so that counts are known by arithmetic
    rows, columns = 2**21 + 5, 1024
    ramp = (np.arange(rows) >= rows - 3).astype(np.float32)
    plane = np.broadcast_to(ramp[None, None, :, None], (1, 1, rows, columns))
    assert plane.size > 2**31
    counts = psf.sa_counts(plane, plane, plane)
    assert counts.tp.item() == counts.predicted.item() == counts.actual.item() == 3 * columns
    assert counts.voxels.item() == rows * columns
    assert torch.tensor(counts.dice.item()) == 1
