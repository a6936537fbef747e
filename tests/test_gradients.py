"""Compiled gradients of the margin: against plain torch formulas, numerically, and at the edges."""

from __future__ import annotations

import itertools
import subprocess
import sys
from typing import Any

import pytest
import torch
from threadpoolctl import threadpool_limits

import protoseg_fast as psf
from protoseg_fast import _formula, torch_ops
from published import published_softmax

SIZES = {1: (37,), 2: (9, 11), 3: (4, 6, 5)}
FEATURE_SIZES = {1: (13,), 2: (5, 14), 3: (2, 3, 7)}
RESIZE: list[dict[str, Any] | None] = [
    None,
    {},
    {"align_corners": True},
    {"interpolation": "nearest"},
]
DEFAULTS = {"interpolation": "linear", "align_corners": False}


def inputs(
    rank: int,
    resized: bool,
    mask: bool,
    targets: int = 1,
    channels: int = 6,
    dtype: torch.dtype = torch.float64,
) -> list[torch.Tensor]:
    """Return features, pred and perhaps mask, that require grad."""
    torch.manual_seed(rank)
    size = SIZES[rank]
    given = [
        torch.randn(2, channels, *(FEATURE_SIZES[rank] if resized else size), dtype=dtype) + 1,
        torch.rand(2, targets, *size, dtype=dtype) * 0.9 + 0.05,
    ]
    if mask:
        given.append(torch.rand(2, 1, *size, dtype=dtype) + 0.1)
    return [x.requires_grad_() for x in given]


def assert_close(found: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    """Compare relative to the largest value expected."""
    scale = expected.abs().max().clamp(min=1e-30)
    torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=tolerance)


@pytest.mark.parametrize("resize", RESIZE)
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("rank", SIZES)
def test_the_kernels_and_the_plain_formula_agree(
    rank: int, metric: str, resize: dict[str, Any] | None
) -> None:
    options = {"metric": metric, "temperature": 3.0 if metric == "cosine" else 1.0}
    options |= DEFAULTS | (resize or {})
    for groups, mask, targets in itertools.product([1, 2, 6], [False, True], [1, 2, 3]):
        given = inputs(rank, resize is not None, mask, targets)
        out = torch_ops.margin(*given, groups=groups, **options)
        arguments = [*given, *[None] * (3 - len(given))]
        expected = _formula.margin(*arguments, groups=groups, binarize=None, **options)
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-11)
        grad = torch.randn_like(out)
        found = torch.autograd.grad(out, given, grad)
        exact = torch.autograd.grad(expected, given, grad, materialize_grads=True)
        for a, b in zip(found, exact, strict=True):
            if groups == 6 and metric == "cosine":  # one channel: a step function
                assert not a.any()
            else:
                assert_close(a, b, 1e-11)


@pytest.mark.parametrize("resize", [None, {}, {"align_corners": True}])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("rank", SIZES)
@pytest.mark.parametrize("groups", [1, 2])
def test_gradcheck(rank: int, metric: str, resize: dict[str, Any] | None, groups: int) -> None:
    given = inputs(rank, resize is not None, True, targets=2, channels=4)
    small = [x.detach()[:1].clone().requires_grad_() for x in given]

    def call(*tensors: torch.Tensor) -> torch.Tensor:
        return psf.probability(*tensors, groups=groups, metric=metric, **(resize or {}))

    assert torch.autograd.gradcheck(call, small, fast_mode=rank == 3)


@pytest.mark.parametrize("resized", [False, True])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_second_derivatives(metric: str, resized: bool) -> None:
    x = torch.randn(1, 4, *((3, 4) if resized else (5, 6)), dtype=torch.float64)
    p, m = torch.rand(2, 1, 1, 5, 6, dtype=torch.float64) * 0.9 + 0.05
    given = [t.requires_grad_() for t in (x, p.detach(), m.detach())]

    def call(*tensors: torch.Tensor) -> torch.Tensor:
        return psf.probability(*tensors, groups=2, metric=metric)

    assert torch.autograd.gradgradcheck(call, given)


@pytest.mark.parametrize("resized", [False, True])
@pytest.mark.parametrize("mask", [False, True])
def test_float32_is_the_published_formula(resized: bool, mask: bool) -> None:
    given = inputs(2, resized, mask, channels=20, dtype=torch.float32)
    exact = [x.detach().double().requires_grad_() for x in given]
    resize = torch.nn.functional.interpolate
    whole = resize(exact[0], SIZES[2], mode="bilinear") if resized else exact[0]
    expected = published_softmax(whole, *exact[1:])[:, 1:]
    out = psf.probability(*given)[:, 0]
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=2e-5)
    weight = torch.linspace(-1, 1, out.numel()).reshape(out.shape)
    found = torch.autograd.grad(out, given, weight)
    wanted = torch.autograd.grad(expected, exact, weight.double())
    for a, b in zip(found, wanted, strict=True):
        assert_close(a.double(), b, 2e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("resized", [False, True])
def test_half_precision_accumulates_in_float32(
    dtype: torch.dtype, metric: str, resized: bool
) -> None:
    x, p = inputs(2, resized, False, channels=40, dtype=torch.float32)
    half = x.detach().to(dtype).requires_grad_()
    same = half.detach().double().requires_grad_()
    out = psf.probability(half, p, metric=metric)
    assert out.dtype == torch.float32
    expected = psf.probability(same, p.double(), metric=metric)
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=1e-5)
    (found,) = torch.autograd.grad(out.square().sum(), half)
    (exact,) = torch.autograd.grad(expected.square().sum(), same)
    assert found.dtype == dtype
    assert_close(found.double(), exact, torch.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [1e-9, 1e-6, 1e-3, 1.0, 1e5, 1e9])
def test_halves_are_the_float32_gradients_rounded_by_torch(
    dtype: torch.dtype, scale: float
) -> None:
    # of all magnitudes: subnormal, ordinary and too large for a half
    x, p = inputs(2, False, False, channels=40, dtype=torch.float32)
    half = x.detach().to(dtype)
    grad = torch.randn(2, 1, 1, *SIZES[2]) * scale
    found, exact = (
        torch.autograd.grad(torch_ops.margin(leaf, p), leaf, grad)[0]
        for leaf in (half.requires_grad_(), half.detach().float().requires_grad_())
    )
    assert torch.equal(found, exact.to(dtype))


def layouts(x: torch.Tensor) -> dict[str, torch.Tensor]:
    return {
        "channels_last": x.contiguous(memory_format=torch.channels_last),
        "transposed": x.transpose(2, 3).contiguous().transpose(2, 3),
        "sliced": torch.stack([x, x], dim=-1)[..., 0],
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("resized", [False, True])
def test_layouts_give_the_same_bits(metric: str, resized: bool, dtype: torch.dtype) -> None:
    x, p = inputs(2, resized, False, targets=2, channels=36)
    x = x.detach().to(dtype)

    def gradients(features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        leaf = features.detach().requires_grad_()
        out = psf.probability(leaf, p, groups=2, metric=metric)
        return torch.autograd.grad(out.square().sum(), (leaf, p))

    expected = gradients(x)
    for name, features in layouts(x).items():
        found = gradients(features)
        if name != "sliced":
            assert found[0].stride() == features.stride()
        for a, b in zip(found, expected, strict=True):
            assert torch.equal(a, b), name


def all_gradients(metric: str, feature_size: tuple[int, ...], dtype: torch.dtype) -> list[bytes]:
    torch.manual_seed(5)
    x = (torch.randn(1, 10, *feature_size) * 3 + 7).to(dtype).requires_grad_()
    p, m = torch.rand(1, 3, 150, 141, requires_grad=True), torch.rand(1, 1, 150, 141)
    m.requires_grad_()
    out = torch_ops.margin(x, p, m, groups=5, metric=metric)
    found = torch.autograd.grad(out, (x, p, m), torch.randn(out.shape))
    return [t.view(torch.uint8).numpy().tobytes() for t in (out.detach(), *found)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("feature_size", [(150, 141), (40, 200)])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_every_isa_and_thread_count_gives_the_same_bits(
    metric: str, feature_size: tuple[int, ...], dtype: torch.dtype
) -> None:
    previous = psf.build_config()["isa"]
    results = []
    try:
        for isa in psf.available_isas():
            psf.set_isa(isa)
            for threads in (1, 2, 5):
                with threadpool_limits(threads, user_api="openmp"):
                    results.append(all_gradients(metric, feature_size, dtype))
    finally:
        psf.set_isa(previous)
    assert all(result == results[0] for result in results)


# ---- at the edges --------------------------------------------------------------------------


def test_the_logarithm_of_a_small_background_probability_stays_finite() -> None:
    x = torch.randn(1, 8, 10, 10) * 0.1
    x[:, :, :5] += 2
    p = torch.full((1, 1, 10, 10), 0.01)
    p[:, :, :5] = 0.99
    x.requires_grad_()
    out = psf.ProtoSeg("2d")(x, p)
    assert out[:, 1].max() == 1
    assert out[:, 0].min() > 0
    (-out[:, 0].log().mean()).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad.abs().max() > 0


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("resized", [False, True])
def test_an_undefined_group_left_out_by_the_loss_sends_nothing_back(
    metric: str, resized: bool
) -> None:
    x, p = inputs(2, resized, False, channels=6, dtype=torch.float32)
    x, p = x.detach(), p.detach()

    def gradients() -> tuple[torch.Tensor, ...]:
        leaves = x.clone().requires_grad_(), p.clone().requires_grad_()
        values = torch_ops.margin(*leaves, groups=3, metric=metric)
        defined = torch.where(values.isnan(), 0, values).sigmoid()
        return torch.autograd.grad(defined.square().sum(), leaves)

    expected = gradients()
    x[0, 0, 1, 1] = float("nan")  # image 0, group 0
    p[1] = 1  # image 1: no background
    found = gradients()
    assert all(t.isfinite().all() for t in found)
    assert not found[0][0, :2].any()
    assert not found[0][1].any()
    assert torch.equal(found[0][0, 2:], expected[0][0, 2:])


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_an_undefined_group_that_counts_is_nan_and_others_keep_their_bits(metric: str) -> None:
    x, p = inputs(2, False, False, channels=6, dtype=torch.float32)
    x, p = x.detach(), p.detach()

    def gradient() -> torch.Tensor:
        leaf = x.clone().requires_grad_()
        out = psf.probability(leaf, p, groups=3, metric=metric)
        return torch.autograd.grad(out.sum(), leaf)[0]

    expected = gradient()
    x[0, 0, 1, 1] = float("inf")
    found = gradient()
    assert found[0, :2].isnan().all()
    assert torch.equal(found[0, 2:], expected[0, 2:])
    assert torch.equal(found[1], expected[1])


def test_cosine_of_a_voxel_of_zeros() -> None:
    x, p = inputs(2, False, False, dtype=torch.float64)
    x = x.detach()
    x[..., 3, 3] = 0
    x.requires_grad_()
    out = psf.probability(x, p, metric="cosine")
    assert (out[..., 3, 3] == 0.5).all()
    grads = torch.autograd.grad(out.square().sum(), (x, p))
    assert all(g.isfinite().all() for g in grads)


@pytest.mark.parametrize("scale", [1e-18, 1e17])
def test_cosine_gradients_of_norms_near_the_ends_of_their_range(scale: float) -> None:
    x, p = inputs(2, False, False, dtype=torch.float32)
    small, exact = ((x.detach().to(d) * scale).requires_grad_() for d in (x.dtype, torch.float64))
    found, expected = (
        torch.autograd.grad(psf.probability(f, p, metric="cosine").square().sum(), f)[0]
        for f in (small, exact)
    )
    assert_close(found.double() * scale, expected * scale, 1e-5)


def test_binarize_stops_the_gradient_of_pred_but_not_of_the_mask() -> None:
    x, p, m = inputs(2, False, True)
    out = psf.probability(x, p, m, binarize=0.5)
    grads = torch.autograd.grad(out.square().sum(), (x, p, m))
    assert not grads[1].any()
    assert grads[0].any()
    assert grads[2].any()

    def call(features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return psf.probability(features[:1], p.detach()[:1], mask[:1], binarize=0.5)

    assert torch.autograd.gradcheck(call, (x, m), fast_mode=True)


def test_only_what_is_asked_for_is_computed() -> None:
    given = inputs(2, True, True)
    everything = torch.autograd.grad(psf.probability(*given).square().sum(), given)
    for i in range(3):
        some = [x.detach().requires_grad_(i == k) for k, x in enumerate(given)]
        (found,) = torch.autograd.grad(psf.probability(*some).square().sum(), some[i])
        torch.testing.assert_close(found, everything[i], rtol=1e-12, atol=1e-14)


def test_bad_input_with_gradients_is_refused_as_without() -> None:
    x, p = inputs(2, False, False, dtype=torch.float32)
    with pytest.raises(ValueError, match="sigmoid"):
        psf.probability(x, p * 3)
    with pytest.raises(ValueError, match="same number of spatial axes"):
        psf.probability(x, p[..., 0])
    with pytest.raises(ValueError, match="positive divisor"):
        psf.probability(x, p, groups=4)
    with pytest.raises(ValueError, match="metric must be one of"):
        psf.probability(x, p, metric="manhattan")
    with pytest.raises(TypeError, match="groups must be"):
        psf.probability(x, p, groups=1.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="floating"):
        psf.probability(x, (p > 0.5).long())


MEMORY = """
import ctypes, sys, torch, protoseg_fast as psf
from pathlib import Path
def resident(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(x for x in lines if x.startswith(field)).split()[1]) * 1024
def training_step(n):
    x = torch.randn(1, n, 256, 256).requires_grad_()
    p = torch.rand(1, 1, 256, 256).requires_grad_()
    # what is no extra: the gradients that the caller gets
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    psf.probability(x, p).square().sum().backward()
    return resident("VmHWM") - before - 4 * (x.numel() + p.numel()), 4 * x.numel()
training_step(4)
extra, features = training_step(64)
print(extra / features)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_a_training_step_takes_little_memory_beyond_its_gradients() -> None:
    run = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) <= 0.25, run.stdout
