"""Training on a GPU: gradients against plain torch in float64, and what a step takes."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gpu.device import Device, Gpu
from protoseg_fast import _formula, torch_ops

Report = dict[str, Any]

NAMES = ("features", "pred", "mask")
TOLERANCE = {"float16": 2e-3, "bfloat16": 1e-2, "float32": 2e-5, "float64": 1e-10}
#: Size, feature size (None: the same), channels, groups, targets.
SHAPES: list[tuple[tuple[int, ...], tuple[int, ...] | None, int, int, int]] = [
    ((40, 50), None, 12, 1, 1),
    ((33, 47), None, 6, 6, 2),
    ((9, 17, 21), None, 8, 2, 3),
    ((3001,), None, 8, 4, 1),
    ((24, 30), (13, 17), 10, 2, 2),
    ((10, 12, 8), (7, 9, 5), 6, 1, 1),
    ((20, 21), (33, 14), 6, 6, 1),
]


class Case(NamedTuple):
    """One forward and backward pass: inputs of the host, options of the margin, what comes down."""

    name: str
    given: list[Tensor]
    options: tuple[Any, ...]  # of _formula.margin, after the mask
    grad: Tensor


def cases(small: bool) -> Iterator[Case]:
    """Every shape in every dtype, by both metrics, in rows and channels-last; a part if small."""
    every = itertools.product(SHAPES, TOLERANCE, ["euclidean", "cosine"], [False, True])
    for number, (shape, dtype, metric, last) in enumerate(every):
        if small and number % 5:
            continue
        size, feature_size, channels, groups, targets = shape
        torch.manual_seed(number)
        features = (torch.randn(2, channels, *(feature_size or size)) + 1).to(getattr(torch, dtype))
        if last:
            features = features.movedim(1, -1).contiguous().movedim(-1, 1)
        other = torch.float64 if dtype == "float64" else torch.float32
        pred = torch.rand(2, targets, *size, dtype=other) * 0.9 + 0.05
        mask = torch.rand(2, 1, *size, dtype=other) + 0.1
        temperature = 3.0 if metric == "cosine" else 1.0
        options = (groups, metric, temperature, "linear", False, None)
        grad = torch.randn(2, groups, targets, *size, dtype=other)
        layout = "channels-last" if last else "rows"
        name = f"{feature_size or size} -> {size}, {channels} in {groups}, {dtype}, {metric}"
        yield Case(f"{name}, {layout}", [features, pred, mask], options, grad)


def exact(case: Case) -> list[np.ndarray]:
    """The gradients by autograd of the plain formula, in float64 on the CPU."""
    leaves = [x.double().requires_grad_() for x in case.given]
    values = _formula.margin(*leaves, *case.options)
    found = torch.autograd.grad(values, leaves, case.grad.double(), materialize_grads=True)
    return [x.numpy() for x in found]


def of_operators(case: Case) -> list[np.ndarray]:
    """The gradients by the package's operators on CUDA tensors."""
    leaves = [x.cuda().requires_grad_() for x in case.given]
    names = ("groups", "metric", "temperature", "interpolation", "align_corners", "binarize")
    values = torch_ops.margin(*leaves, **dict(zip(names, case.options, strict=True)))
    found = torch.autograd.grad(values, leaves, case.grad.cuda())
    return [x.double().cpu().numpy() for x in found]


def of_engine(device: Any, case: Case) -> list[np.ndarray]:
    """The same without torch's part, for the runtime, whose arrays are no tensors."""
    psf, arrays = device.psf, device.arrays

    def exported(x: Any) -> Any:
        return psf._arrays.inspect("x", x).exported

    features, pred, mask = (device.array(x) for x in case.given)
    guide = psf.Guide(pred, None, mask)._core
    groups, metric, temperature, interpolation, align_corners, _ = case.options
    options = psf._core.Options(
        groups=groups,
        metric=metric,
        temperature=temperature,
        interpolation=interpolation,
        align_corners=align_corners,
    )
    tape = guide.margin_tape(exported(features), options)
    flat = [arrays.asarray(arrays.asnumpy(x).reshape(-1)) for x in tape]
    out = [arrays.empty(x.shape, x.name) for x in (features, pred, mask)]
    guide.margin_backward(
        exported(features),
        options,
        *(exported(x) for x in (*flat, device.array(case.grad.view(-1)))),
        *(exported(x) for x in out),
    )
    return [device.numpy(x).astype(np.float64) for x in out]


def gradients(device: Device, small: bool) -> Report:
    """Compare all cases; then, on a GPU, compile, repeat, and measure a step."""
    failures, done = [], 0
    for case in cases(small):
        dtype = str(case.given[0].dtype).removeprefix("torch.")
        if not isinstance(device, Gpu) and dtype == "bfloat16":  # NumPy has none
            continue
        done += 1
        found = of_operators(case) if isinstance(device, Gpu) else of_engine(device, case)
        for name, a, b in zip(NAMES, found, exact(case), strict=True):
            narrow = name == "features" or dtype == "float64"
            allowed = TOLERANCE[dtype if narrow else "float32"]
            error = float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30))
            if not error <= allowed:
                failures.append({"case": f"{case.name}: {name}", "error": f"wrong by {error:.1e}"})
    report: Report = {"cases": done, "failures": failures}
    if isinstance(device, Gpu):
        failures += compiled_and_repeated()
        if not small:
            report["rows"] = timings(device)
    return report | {"ok": not failures}


def compiled_and_repeated() -> list[dict[str, str]]:
    """What only torch's CUDA part can show: fullgraph compilation, the same bits every time."""
    x = torch.randn(1, 16, 96, 90, device="cuda", requires_grad=True)
    p = torch.rand(1, 1, 96, 90, device="cuda", requires_grad=True)

    def step(call: Callable[..., Tensor]) -> list[Tensor]:
        return list(torch.autograd.grad(call(x, p, metric="cosine").square().sum(), (x, p)))

    first, second = step(torch_ops.margin), step(torch_ops.margin)
    failures = []
    if not all(torch.equal(a, b) for a, b in zip(first, second, strict=True)):
        failures.append({"case": "repeated", "error": "other bits"})
    compiled = step(torch.compile(torch_ops.margin, fullgraph=True))
    if not all(torch.allclose(a, b, rtol=1e-4) for a, b in zip(first, compiled, strict=True)):
        failures.append({"case": "compiled", "error": "other numbers"})
    return failures


#: Channels, feature size, size.
STEPS = [(64, (256, 256), (256, 256)), (32, (32,) * 3, (64,) * 3), (256, (64, 64), (256, 256))]


def timings(device: Gpu) -> list[dict[str, Any]]:
    """Seconds and extra peak memory of a forward and backward pass, ours and eager PyTorch's."""
    rows = []
    for channels, feature_size, size in STEPS:
        x = torch.randn(1, channels, *feature_size, device="cuda", requires_grad=True)
        p = torch.rand(1, 1, *size, device="cuda", requires_grad=True)
        options = (1, "euclidean", 1.0, "linear", False, None)
        for name, call in (
            ("protoseg_fast", lambda x, p: torch_ops.margin(x, p)),
            ("plain torch, eager", lambda x, p, o=options: _formula.margin(x, p, None, *o)),
        ):
            step = lambda call=call, x=x, p=p: torch.autograd.grad(  # noqa: E731
                call(x, p).sigmoid().square().sum(), (x, p)
            )
            step()
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            kept = step()
            torch.cuda.synchronize()
            wanted = sum(t.numel() * t.element_size() for t in kept)
            extra = torch.cuda.max_memory_allocated() - before - wanted
            rows.append(
                {
                    "workload": f"step, {channels} x {feature_size} -> {size}",
                    "contender": name,
                    "median_s": statistics.median(device.seconds(step) for _ in range(20)),
                    "extra_bytes": extra,
                    "feature_bytes": x.numel() * x.element_size(),
                }
            )
    return rows
