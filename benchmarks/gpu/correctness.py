"""Every strategy and dtype against the specification; reproducibility, graphs, streams."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from gpu.device import ROOT, Device, DeviceGuide, Gpu

sys.path.insert(0, str(ROOT / "tests"))
from checks import check
from problems import DTYPES, Problem, cast, feature_data, make_mask, with_layout

Report = dict[str, Any]

TUNINGS: list[dict[str, Any]] = [
    {},
    {"strategy": "small"},
    {"strategy": "resident"},
    {"strategy": "resident", "units": 4},
    {"strategy": "resident", "cluster": 4, "units": 2},
    {"strategy": "resident", "cluster": 8},
    {"strategy": "streamed", "units": 2},
    {"strategy": "split", "units": 1},
    {"strategy": "split", "units": 4, "cache_bytes": 1},
]

#: Name, size, feature size, channels, groups, layout, mask, targets, resizing, data.
SHAPES: list[tuple[Any, ...]] = [
    ("units 33x47", (33, 47), None, 6, "unit", "contiguous", "bool", 2, {}, "normal"),
    ("units 16x16", (16, 16), None, 9, "unit", "contiguous", None, 1, {}, "ties"),
    ("units 130x131", (130, 131), None, 5, "unit", "contiguous", "weights", 1, {}, "mixed"),
    ("units 3-D", (9, 17, 21), None, 4, "unit", "channels_last", "bool", 5, {}, "offset"),
    ("layer 40x50", (40, 50), None, 12, 1, "contiguous", None, 2, {}, "normal"),
    ("groups 1-D", (3001,), None, 8, 4, "sliced", "bool", 1, {}, "sparse"),
    ("units 13x17 -> 60x45", (60, 45), (13, 17), 5, "unit", "contiguous", "bool", 2, {}, "smooth"),
    (
        "layer 7x9x5 -> 20x25x18",
        (20, 25, 18),
        (7, 9, 5),
        6,
        2,
        "channels_last",
        None,
        1,
        {},
        "tiny",
    ),
    (
        *("units nearest", (40, 41), (64, 30), 4, "unit", "contiguous", None, 1),
        *({"interpolation": "nearest"}, "normal"),
    ),
    (
        *("units align", (40, 41), (10, 30), 4, "unit", "contiguous", "weights", 1),
        *({"align_corners": True}, "normal"),
    ),
]


def make_problem(shape: tuple[Any, ...], dtype: str, metric: str, seed: int) -> Problem:
    """A problem of tests/problems.py."""
    _, size, feature_size, channels, groups, layout, mask, targets, resize, data = shape
    rng = np.random.default_rng(seed)
    features = cast(feature_data(rng, data, 2, channels, feature_size or size), dtype)
    pred = rng.random((2, targets, *size)).astype(np.float32)
    return Problem(
        with_layout(rng, layout, features),
        pred,
        rng.random(pred.shape) < 0.3,
        make_mask(rng, mask, 2, size),
        {"groups": groups, "metric": metric},
        resize,
    )


def possible(problem: Problem, tuning: dict[str, Any]) -> bool:
    """Whether the strategy can be forced; groups know one way only."""
    strategy = tuning.get("strategy", "automatic")
    if problem.options["groups"] != "unit":
        return strategy == "automatic"
    same_size = problem.features.shape[2:] == problem.pred.shape[2:]
    if strategy == "small":
        return same_size and bool(np.prod(problem.pred.shape[2:]) <= 256)
    if strategy == "streamed":
        return same_size
    return strategy != "resident" or same_size or tuning.get("cluster", 1) == 1


def cases(small: bool) -> Iterator[tuple[str, Problem, dict[str, Any]]]:
    """All combinations; ``small`` takes one of every shape and some others."""
    number = 0
    for index, shape in enumerate(SHAPES):
        taken = False
        for dtype in DTYPES:
            for metric in ("euclidean", "cosine"):
                problem = make_problem(shape, dtype, metric, seed=index)
                for tuning in TUNINGS:
                    if not possible(problem, tuning):
                        continue
                    number += 1
                    if small and taken and number % 23:
                        continue
                    taken = True
                    yield f"{shape[0]}, {dtype}, {metric}, {tuning or 'automatic'}", problem, tuning


def correctness(device: Device, small: bool) -> Report:
    """Compare all cases with the specification; those that fail are listed, none stops the rest."""
    failures, done, impossible = [], 0, 0
    for name, problem, tuning in cases(small):
        done += 1
        try:
            check(problem, lambda *given, t=tuning: DeviceGuide(device, t, *given))
        except Exception as error:
            if "strategy asked for is not possible" in str(error):  # on this device
                impossible += 1
                continue
            lines = [line for line in str(error).splitlines() if line.strip()]
            failures.append(
                {"case": name, "error": f"{type(error).__name__}: {' '.join(lines[:8])}"}
            )
            if isinstance(error, RuntimeError) and "CUDA" in str(error):
                break  # the context is lost
    return {"ok": not failures, "cases": done - impossible, "failures": failures}


def reproducible(device: Device, small: bool) -> Report:
    """The same bits on every run, and prototypes that do not depend on the strategy."""
    shape = ("units", (96, 130), None, 7, "unit", "contiguous", "bool", 2, {}, "normal")
    problem = make_problem(shape, "float32", "euclidean", seed=1)
    bits, scores = set(), set()
    for tuning in [t for t in TUNINGS if possible(problem, t)] * (1 if small else 5):
        guide = DeviceGuide(device, tuning, *problem.guide)
        bits.add(guide.prototypes(problem.features).positive.tobytes())
        scores.add(guide.sa_score(problem.features, groups="unit").tobytes())
    return {"ok": len(bits) == len(scores) == 1, "prototypes": len(bits), "scores": len(scores)}


def values(device: Device, small: bool) -> Report:
    """Wrong values: NaN scores without an exception, and the exception of check()."""
    del small
    pred = np.full((1, 1, 20, 20), 1.5, np.float32)
    features = np.random.default_rng(0).normal(size=(1, 3, 20, 20)).astype(np.float32)
    guide = DeviceGuide(device, {}, pred)
    nan = bool(np.isnan(guide.sa_score(features)).all())
    try:
        guide.guide.check()
        message = ""
    except ValueError as error:
        message = str(error)
    return {"ok": nan and "sigmoid" in message, "message": message}


def graph(device: Device, small: bool) -> Report:
    """A call on a prepared guide is captured, and replayed on other features."""
    del small
    problem = make_problem(SHAPES[0], "float32", "euclidean", seed=0)
    given = [device.array(x) for x in problem.guide]
    features = device.array(problem.features)
    guide = device.psf.Guide(*given)
    expected = device.numpy(guide.sa_score(features, groups="unit"))
    if not isinstance(device, Gpu):
        before = guide._core.core.allocations
        stream = device.arrays.cuda.Stream(5)
        stream.capturing = True
        with stream:
            found = device.numpy(guide.sa_score(features, groups="unit"))
        same = bool((found == expected).all())
        return {"ok": same and guide._core.core.allocations == before and not stream.waited}
    static = torch.zeros_like(features)
    guide.sa_score(static, groups="unit")
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        scores = guide.sa_score(static, groups="unit")
    static.copy_(features)
    captured.replay()
    return {"ok": bool(np.array_equal(device.numpy(scores), expected, equal_nan=True))}


def streams(device: Device, small: bool) -> Report:
    """Several Python threads, each with its stream, share a guide."""
    del small
    problem = make_problem(SHAPES[6], "float32", "euclidean", seed=0)
    features = device.array(problem.features)
    guide = device.psf.Guide(*(device.array(x) for x in problem.guide))
    expected = device.numpy(
        device.psf.Guide(*(device.array(x) for x in problem.guide)).sa_score(features)
    )
    device.synchronize()
    if not isinstance(device, Gpu):  # the runtime does one launch at a time
        with device.arrays.cuda.Stream(3):
            found = device.numpy(guide.sa_score(features))
        return {"ok": bool((found == expected).all()), "threads": 1}
    results: list[np.ndarray | BaseException] = []

    def work() -> None:
        try:
            stream = torch.cuda.Stream()
            with torch.cuda.stream(stream):
                scores = [guide.sa_score(features) for _ in range(50)]
            stream.synchronize()
            results.extend(device.numpy(x) for x in scores)
        except BaseException as error:
            results.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    errors = [str(x) for x in results if isinstance(x, BaseException)]
    arrays = [x for x in results if isinstance(x, np.ndarray)]
    same = all(np.array_equal(x, expected, equal_nan=True) for x in arrays)
    return {"ok": same and not errors, "threads": 4, "calls": len(arrays), "errors": errors[:3]}


def libraries(device: Device, small: bool) -> Report:
    """CuPy in, CuPy out; DLPack; the same numbers as torch's."""
    del small
    problem = make_problem(SHAPES[0], "float32", "euclidean", seed=0)
    expected = DeviceGuide(device, {}, *problem.guide).sa_score(problem.features, groups="unit")
    if not isinstance(device, Gpu):
        return {"ok": True, "note": "the dry run's arrays are of this kind already"}
    import cupy

    given = [cupy.asarray(x) for x in (problem.features, *problem.guide)]
    scores = device.psf.sa_score(*given, groups="unit")
    same = bool(np.array_equal(cupy.asnumpy(scores), expected, equal_nan=True))
    return {"ok": same and isinstance(scores, cupy.ndarray), "cupy": cupy.__version__}
