"""How fast: copy bandwidth, every kind of sweep as a share of it, peers."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from measure import DisagreementError, Settings, measure, to_json
from workloads import HEADLINE, Workload, make_inputs

from gpu.device import Device, Gpu, tune

Report = dict[str, Any]

#: Bytes of features that calls rotate over: several times any second-level cache.
ROTATED = 600e6

SWEEPS = [
    Workload("units 64 x 256²", 64, (256, 256), (256, 256)),
    Workload("units 512 x 256²", 512, (256, 256), (256, 256)),
    Workload("units 512 x 256², float16", 512, (256, 256), (256, 256), dtype="float16"),
    Workload("units 256 x 256², float64", 256, (256, 256), (256, 256), dtype="float64"),
    Workload("units 128 x 512²", 128, (512, 512), (512, 512)),
    Workload("units 16 x 1024²", 16, (1024, 1024), (1024, 1024)),
    Workload(
        "units 4 x 128 x 512², bfloat16", 128, (512, 512), (512, 512), images=4, dtype="bfloat16"
    ),
    Workload("units 4096 x 16²", 4096, (16, 16), (16, 16), images=8),
    Workload("units 512 x 64²", 512, (64, 64), (64, 64), images=8),
    Workload("units 16 x 128³", 16, (128, 128, 128), (128, 128, 128)),
    Workload("units 128 x 256², 4 targets", 128, (256, 256), (256, 256), targets=4),
    Workload("layer 64 x 256²", 64, (256, 256), (256, 256), "layer"),
    Workload("layer 512 x 256²", 512, (256, 256), (256, 256), "layer"),
    Workload("layer 128 x 512², float16", 128, (512, 512), (512, 512), "layer", dtype="float16"),
    Workload("16 groups, 128 x 256²", 128, (256, 256), (256, 256), 16),
    Workload("units 256 x 64² -> 256²", 256, (64, 64), (256, 256)),
    Workload("units 512 x 32² -> 512²", 512, (32, 32), (512, 512)),
    Workload("units 96 x 37² -> 200²", 96, (37, 37), (200, 200)),
    Workload("units 128 x 16³ -> 128³", 128, (16, 16, 16), (128, 128, 128)),
    Workload("layer 256 x 64² -> 256²", 256, (64, 64), (256, 256), "layer"),
]

#: Strategies to compare on same-size sweeps.
TUNINGS: list[dict[str, Any]] = [
    *({"strategy": "resident", "cluster": c, "units": u} for c in (1, 2, 4, 8) for u in (1, 2, 4)),
    *({"strategy": "streamed", "units": u} for u in (1, 2, 4)),
    *({"strategy": "split", "units": u} for u in (1, 2, 4)),
]


def sized(workload: Workload, small: bool) -> Workload:
    """The workload, or a tiny one of its kind."""
    if not small:
        return workload
    tiny = workload.tiny()
    return dataclasses.replace(tiny, channels=min(tiny.channels, 4), images=1)


def bandwidth(device: Device, small: bool) -> Report:
    """Bytes per second of a plain copy (read and written), and of a sum (read)."""
    count = (1 << 16) if small else (1 << 28)
    source = torch.ones(count, device=device.torch_device)
    target = torch.empty_like(source)
    copy = statistics.median(device.seconds(lambda: target.copy_(source)) for _ in range(20))
    read = statistics.median(device.seconds(lambda: source.sum()) for _ in range(20))
    copied = 2 * source.nbytes / copy
    return {"ok": True, "copy_bytes_s": copied, "read_bytes_s": source.nbytes / read}


def time_calls(
    device: Device, calls: Sequence[Callable[[], Any]], repeats: int
) -> dict[str, float]:
    """Seconds of one call: from Python, and in a graph of all calls (on the device alone)."""
    for call in calls[:2]:
        call()
    device.synchronize()
    single = [device.seconds(calls[i % len(calls)]) for i in range(repeats)]
    result = {"call_s": statistics.median(single)}
    if isinstance(device, Gpu):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            kept = [call() for call in calls]
        graph.replay()
        times = [device.seconds(graph.replay) / len(calls) for _ in range(repeats)]
        result["device_s"] = statistics.median(times)
        del kept
    else:
        result["device_s"] = result["call_s"]
    return result


def _prepare(device: Device, workload: Workload, small: bool) -> tuple[Any, list[Any]]:
    """A guide, and copies of the features that are in no cache."""
    inputs = make_inputs(workload, device.torch_device)
    copies = 2 if small else max(2, min(64, -(-int(ROTATED) // workload.feature_bytes)))
    if isinstance(device, Gpu):
        guide = device.psf.Guide(inputs.pred, inputs.target)
        return guide, [inputs.features.clone() for _ in range(copies)]
    guide = device.psf.Guide(device.array(inputs.pred), device.array(inputs.target))
    return guide, [device.array(inputs.features) for _ in range(copies)]


def _row(
    device: Device, workload: Workload, small: bool, copy_bytes_s: float, **tuning: Any
) -> Report:
    guide, copies = _prepare(device, workload, small)
    tune(guide, tuning)
    calls = [lambda f=f: guide.sa_score(f, groups=workload.group_count) for f in copies]
    times = time_calls(device, calls, 2 if small else 15)
    share = workload.feature_bytes / times["device_s"] / copy_bytes_s
    return {
        "name": workload.name,
        "bytes": workload.feature_bytes,
        **times,
        "share_of_copy": share,
        **({"tuning": tuning} if tuning else {}),
    }


def sweeps(device: Device, small: bool) -> Report:
    """Every kind of sweep as a share of the copy bandwidth, each feature byte counted once."""
    copy = bandwidth(device, small)["copy_bytes_s"]
    rows, errors = [], []
    for workload in SWEEPS[:: 5 if small else 1]:
        try:
            rows.append(_row(device, sized(workload, small), small, copy))
        except Exception as error:
            errors.append(f"{workload.name}: {type(error).__name__}: {error}")
        _empty_cache(device)
    return {"ok": not errors, "copy_bytes_s": copy, "rows": rows, "errors": errors}


def strategies(device: Device, small: bool) -> Report:
    """Which strategy is fastest where: what the policy should choose."""
    copy = bandwidth(device, small)["copy_bytes_s"]
    rows = []
    chosen = [w for w in SWEEPS if w.group_count == w.channels and not w.resized and w.targets == 1]
    for workload in chosen[:: 6 if small else 1]:
        for tuning in ({}, *(TUNINGS[::7] if small else TUNINGS)):
            try:
                row = _row(device, sized(workload, small), small, copy, **tuning)
            except ValueError as error:  # not possible on this device
                if "strategy" not in str(error):
                    raise
                continue
            rows.append(row)
        _empty_cache(device)
    return {"ok": True, "copy_bytes_s": copy, "rows": rows}


def together(device: Device, small: bool) -> Report:
    """What it saves to score together: the small layers of a network; a layer and its units."""
    size, images = ((16, 16), 1) if small else ((256, 256), 2)
    rng = np.random.default_rng(0)

    def layer(channels: int, side: int) -> Any:
        shape = (images, 4 if small else channels, min(side, size[0]), min(side, size[0]))
        return device.array(rng.normal(size=shape).astype(np.float32))

    pred = rng.random((images, 1, *size), dtype=np.float32)
    guide = device.psf.Guide(device.array(pred), device.array(pred > 0.6))
    small_layers = [layer(8192 // side, side) for side in (128, 64, 32, 16, 8) for _ in range(2)]
    full = layer(64, size[0])
    score = guide._sa_counts_of_layers
    units = [(x, ["unit"], None) for x in small_layers]
    # Calls that are made one by one, and the layers of the one call that does the same.
    problems = {
        "units of 10 layers, 128² to 8² -> 256²": ([[one] for one in units], units),
        "layer and units 64 x 256²": (
            [[(full, [groups], None)] for groups in ("layer", "unit")],
            [(full, ["layer", "unit"], None)],
        ),
    }
    rows, failures = [], []
    for name, (apart, joined) in problems.items():
        found = [both for layer in score(joined) for both in layer]
        expected = [both for one in apart for ((both,),) in [score(one)]]
        for a, b in zip(found, expected, strict=True):
            for of_a, of_b in zip(
                a.target._arrays.values(), b.target._arrays.values(), strict=True
            ):
                if not np.array_equal(device.numpy(of_a), device.numpy(of_b)):
                    failures.append({"case": name, "error": "counts differ"})
        repeats = 1 if small else 15
        times = {
            "apart": time_calls(device, [lambda a=apart: [score(one) for one in a]], repeats),
            "together": time_calls(device, [lambda j=joined: score(j)], repeats),
        }
        rows.append({"name": name} | times)
    return {"ok": not failures, "cases": len(problems), "failures": failures, "rows": rows}


def peers(device: Device, small: bool) -> Report:
    """The problems and contenders of bench.py; every score is compared with the specification."""
    settings = Settings(
        device=device.torch_device,
        budget_s=0.02 if small else 1.0,
        compiles=not small,
        threads=torch.get_num_threads(),
    )
    rows, skipped, errors = [], [], []
    for workload in HEADLINE[:: 3 if small else 1]:
        try:
            found = to_json(measure(workload.tiny() if small else workload, settings))
            rows += found["rows"]
            skipped += found["skipped"]
        except (DisagreementError, RuntimeError) as error:
            errors.append(f"{workload.name}: {type(error).__name__}: {error}")
        _empty_cache(device)
    return {"ok": not errors, "rows": rows, "skipped": skipped, "errors": errors}


def _empty_cache(device: Device) -> None:
    if isinstance(device, Gpu):
        torch.cuda.empty_cache()
