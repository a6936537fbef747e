"""What goes through the plain formula decides, computes and refuses as the engine does.

That is what is differentiated twice, under torch.func and in forward mode; also under autocast.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

import protoseg_fast as psf
from protoseg_fast import torch_ops


def inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Return features, pred and target."""
    torch.manual_seed(0)
    pred = torch.rand(2, 1, 9, 11, dtype=dtype) * 0.9 + 0.05
    return torch.randn(2, 6, 5, 6, dtype=dtype) * 3 + 5, pred, torch.rand(2, 1, 9, 11) < 0.4


def of_batches(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Map a function of batches over the images of one, by vmap."""

    def of_one(*images: Tensor) -> Tensor:
        return function(*(x[None] for x in images))[0]

    return lambda *batches: torch.vmap(of_one)(*batches)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("binarize", [0.1, 0.3, 0.7])
def test_a_pred_that_is_the_rounded_threshold_is_decided_as_by_the_engine(
    binarize: float, dtype: torch.dtype
) -> None:
    x, p, g = inputs()
    p = p.to(dtype)
    p[..., ::2] = binarize
    expected = psf.probability(x, p, binarize=binarize)
    found = of_batches(lambda x, p: psf.probability(x, p, binarize=binarize))(x, p)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    leaf = x.clone().requires_grad_()
    loss = psf.sa_loss(leaf, p, g, binarize=binarize)
    (first,) = torch.autograd.grad(loss, leaf, create_graph=True)
    (exact,) = torch.autograd.grad(psf.sa_loss(leaf, p, g, binarize=binarize), leaf)
    torch.testing.assert_close(first, exact, rtol=1e-4, atol=1e-7)


FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "probability": lambda x, p, _: psf.probability(x, p, groups=2).square(),
    "cosine": lambda x, p, _: psf.probability(x, p, groups=2, metric="cosine").square(),
    "loss": lambda x, p, g: psf.sa_loss(x, p, g, groups=2, reduction="none"),
    "module": lambda x, p, _: psf.ProtoSeg("2d")(x, p[..., :5, :6]).square(),
}


def gradients_of(function: Callable[..., Tensor]) -> dict[str, Tensor]:
    """Values and gradients of every order, all that the formula computes."""
    x, p, g = inputs()
    leaf = x.clone().requires_grad_()
    (first,) = torch.autograd.grad(function(leaf, p, g).sum(), leaf, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), leaf)
    transformed = torch.func.grad(lambda x: function(x, p, g).sum())(x)
    mapped = of_batches(function)(x, p, g)
    return {
        "first": first.detach(),
        "second": second,
        "torch.func.grad": transformed,
        "vmap": mapped,
    }


@pytest.mark.parametrize("name", FUNCTIONS)
def test_autocast_changes_nothing(name: str) -> None:
    expected = gradients_of(FUNCTIONS[name])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = gradients_of(FUNCTIONS[name])
    for what, exact in expected.items():
        assert found[what].dtype == exact.dtype, what
        scale = exact.abs().max()
        torch.testing.assert_close(
            found[what] / scale, exact / scale, rtol=0, atol=1e-4, msg=lambda m, w=what: f"{w}: {m}"
        )


def test_the_margin_is_float32_under_autocast() -> None:
    x, p, _ = inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for features in (x, x.bfloat16()):
            assert of_batches(torch_ops.margin)(features, p).dtype == torch.float32
        assert of_batches(torch_ops.margin)(x.double(), p).dtype == torch.float64


BAD: list[dict[str, Any]] = [
    {"metric": "manhattan"},
    {"metric": None},
    {"temperature": 3.0},
    {"temperature": -3.0, "metric": "cosine"},
    {"temperature": "1"},
    {"interpolation": "cubic"},
    {"interpolation": "nearest", "align_corners": True},
    {"align_corners": 1},
    {"align_corners": "no"},
    {"binarize": 5.0},
    {"groups": 4},
    {"groups": 0},
    {"pred": torch.rand(1, 1, 9, 11)},
    {"pred": torch.rand(2, 1, 9)},
    {"pred": torch.ones(2, 1, 9, 11, dtype=torch.long)},
    {"pred": torch.rand(2, 0, 9, 11)},
    {"mask": torch.ones(9, 11)},
    {"mask": torch.ones(1, 1, 9, 11)},
    {"mask": torch.ones(2, 2, 9, 11)},
    {"features": torch.ones(2, 6, 5, 6, dtype=torch.long)},
    {"features": torch.ones(2, 6, 5, 6, 1)},
    {"features": torch.ones(2, 0, 5, 6)},
]


@pytest.mark.parametrize("change", BAD)
@pytest.mark.parametrize("loss", [False, True])
def test_bad_input_is_refused_as_without_a_transform(change: dict[str, Any], loss: bool) -> None:
    x, p, g = inputs()
    given: dict[str, Any] = {"features": x, "pred": p} | change
    if loss:
        given["target"] = g if given["pred"].shape == p.shape else given["pred"] > 0.5

    def value(scale: Tensor) -> Tensor:
        features = given["features"] * scale.to(given["features"].dtype)
        call = psf.sa_loss if loss else psf.probability
        return call(**(given | {"features": features})).sum()

    with pytest.raises((TypeError, ValueError)) as expected:
        value(torch.ones((), requires_grad=True))
    for transform in (torch.func.grad(value), lambda x: torch.vmap(value)(x[None])):
        with pytest.raises(expected.type) as found:
            transform(torch.ones(()))
        assert str(found.value) == str(expected.value)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_forward_mode(name: str) -> None:
    x, p, g = inputs(torch.float64)
    mask = g.any(1, keepdim=True)  # bool: no tangent
    function = {
        "loss": lambda x, p: psf.sa_loss(x, p, g, mask),
        "module": lambda x, p: psf.ProtoSeg("2d")(x, p[..., :5, :6], mask[..., :5, :6]),
    }.get(name, lambda x, p: FUNCTIONS[name](x, p, g))
    directions = torch.randn_like(x), torch.randn_like(p)
    expected, tangent = torch.func.jvp(function, (x, p), directions)
    with forward_ad.dual_level():
        duals = (forward_ad.make_dual(*pair) for pair in zip((x, p), directions, strict=True))
        found = forward_ad.unpack_dual(function(*duals))
    torch.testing.assert_close(found.primal, expected)
    torch.testing.assert_close(found.tangent, tangent)
    small = tuple(t[:1].clone().requires_grad_() for t in (x, p))

    def of_one(x: Tensor, p: Tensor) -> Tensor:
        return psf.sa_loss(x, p, g[:1]) if name == "loss" else FUNCTIONS[name](x, p, g)

    assert torch.autograd.gradcheck(of_one, small, check_forward_ad=True, fast_mode=True)


ENGINE_ONLY: dict[str, Callable[..., Any]] = {
    "score": psf.sa_score,
    "counts": lambda x, p, g: psf.sa_counts(x, p, g).tp,
    "segment": lambda x, p, _: psf.segment(x, p),
    "prototypes": lambda x, p, _: psf.prototypes(x, p).positive,
    "guide": lambda x, p, _: psf.Guide(p).probability(x),
}


@pytest.mark.parametrize("name", ENGINE_ONLY)
def test_what_needs_the_engine_says_so_under_a_transform(name: str) -> None:
    x, p, g = inputs()
    with pytest.raises(TypeError, match=r"pred is a tensor of a transform of torch\.func"):
        of_batches(ENGINE_ONLY[name])(x, p, g)
    with pytest.raises(TypeError, match=r"features is a tensor of a transform of torch\.func"):
        torch.func.grad(lambda x: ENGINE_ONLY[name](x, p, g).sum())(x)
