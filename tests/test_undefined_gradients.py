"""Gradients where nothing is predicted or a feature is NaN: 0 if the loss leaves that out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import protoseg_fast as psf
from protoseg_fast import _formula, torch_ops

Loss = Callable[[Tensor], Tensor]

LEAVE_OUT: dict[str, Loss] = {
    "index": lambda p: p[1:].square().sum(),
    "select": lambda p: p[~p.isnan()].square().sum(),
    "nansum": lambda p: p.nansum().square(),
    "where": lambda p: torch.where(p.isnan(), 0, p).square().sum(),
}
MAPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "probability": psf.probability,
    "cosine": lambda x, p: psf.probability(x, p, groups=2, metric="cosine"),
    "margin": torch_ops.margin,
    "module": psf.ProtoSeg("2d"),
    "formula": lambda x, p: _formula.sigmoid(
        _formula.margin(x, p, None, 2, "euclidean", 1.0, "linear", False, None)
    ),
}


def inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Features and pred, nothing predicted in image 0."""
    torch.manual_seed(0)
    x, p = torch.randn(2, 4, 6, 7, dtype=dtype), torch.rand(2, 1, 6, 7, dtype=dtype)
    p[0] = 0
    return x.requires_grad_(), p.requires_grad_()


def first_and_second(loss: Callable[..., Tensor], given: tuple[Tensor, ...]) -> list[Tensor]:
    """Gradients of the kernels, those that are differentiable again, and derivatives of these."""
    kernels = torch.autograd.grad(loss(*given), given)
    first = torch.autograd.grad(loss(*given), given, create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), given)
    return [*kernels, *first, *second]


@pytest.mark.parametrize("leave_out", LEAVE_OUT)
@pytest.mark.parametrize("name", MAPS)
def test_an_image_that_the_loss_leaves_out_gets_0(name: str, leave_out: str) -> None:
    given = inputs()

    def loss(*tensors: Tensor) -> Tensor:
        return LEAVE_OUT[leave_out](MAPS[name](*tensors))

    assert MAPS[name](*given)[0].isnan().all()
    alone = [x.detach()[1:].requires_grad_() for x in given]

    def loss_alone(*tensors: Tensor) -> Tensor:
        values = MAPS[name](*tensors)
        return LEAVE_OUT["nansum" if leave_out == "nansum" else "select"](values)

    expected = first_and_second(loss_alone, tuple(alone))
    for found, exact in zip(first_and_second(loss, given), expected, strict=True):
        assert (found[0] == 0).all()
        torch.testing.assert_close(found[1:], exact, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["probability", "cosine", "module", "formula"])
def test_an_image_that_counts_is_nan(name: str) -> None:
    given = inputs()
    for create_graph in (False, True):
        found = torch.autograd.grad(MAPS[name](*given).sum(), given, create_graph=create_graph)
        assert found[0][0].isnan().all()
        assert found[0][1].isfinite().all()


def test_a_gradient_of_0_keeps_its_second_derivative() -> None:
    # 0 comes back to every voxel, and what comes back depends on the map
    x, p = (t.detach()[1:].requires_grad_() for t in inputs())
    weight = torch.zeros(1, 1, 1, 6, 7, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad((psf.probability(x, p) * weight).sum(), x, create_graph=True)
    assert not first.any()
    (found,) = torch.autograd.grad(first.sum(), weight)
    plain = torch_ops.margin(x, p).sigmoid()
    (first,) = torch.autograd.grad((plain * weight).sum(), x, create_graph=True)
    torch.testing.assert_close(found, torch.autograd.grad(first.sum(), weight)[0])
    assert found.abs().min() > 0


@pytest.mark.parametrize("options", [{}, {"groups": "unit"}, {"groups": 2, "metric": "cosine"}])
def test_the_loss_sends_0_to_groups_it_leaves_out_in_every_order(options: dict[str, Any]) -> None:
    x, p = (t.detach() for t in inputs())
    target, mask = torch.rand(2, 1, 6, 7) < 0.4, torch.rand(2, 1, 6, 7, dtype=torch.float64) + 0.1
    groups = {"unit": 4}.get(options.get("groups", 1), options.get("groups", 1))
    p[1] = p[1].uniform_(0.1, 0.9)
    x[1, 0, 2, 3] = float("nan")
    given = tuple(t.requires_grad_() for t in (x, p, mask))

    def loss(x: Tensor, p: Tensor, m: Tensor) -> Tensor:
        return psf.sa_loss(x, p, target, m, reduction="sum", **options)

    channels = 4 // groups
    clean = [x.detach()[1:, channels:], p.detach()[1:], mask.detach()[1:]]
    clean = [t.requires_grad_() for t in clean]
    rest = dict(options, groups=groups - 1)

    def loss_of_rest(x: Tensor, p: Tensor, m: Tensor) -> Tensor:
        return psf.sa_loss(x, p, target[1:], m, reduction="sum", **rest)

    found = first_and_second(loss, given)
    assert all((t[0] == 0).all() for t in found)
    assert not any(t[1, :channels].any() for t in found[::3])
    if groups > 1:
        expected = first_and_second(loss_of_rest, tuple(clean))
        for i, (mine, exact) in enumerate(zip(found, expected, strict=True)):
            part = mine[1:, channels:] if i % 3 == 0 else mine[1:]
            torch.testing.assert_close(part, exact, rtol=1e-9, atol=1e-12)
    transformed = torch.func.grad(loss, argnums=(0, 1, 2))(*(t.detach() for t in given))
    for mine, exact in zip(transformed, found[:3], strict=True):
        torch.testing.assert_close(mine, exact, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_compiled() -> None:
    torch.compiler.reset()
    given = inputs(torch.float32)
    compiled = torch.compile(psf.probability, fullgraph=True)
    expected = torch.autograd.grad(psf.probability(*given)[1:].sum(), given)
    left_out = torch.autograd.grad(compiled(*given)[1:].sum(), given)
    for found, exact in zip(left_out, expected, strict=True):
        torch.testing.assert_close(found, exact)
        assert not found[0].any()
    (counted,) = torch.autograd.grad(compiled(*given).sum(), given[0])
    assert counted[0].isnan().all()


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", MAPS)
def test_features_that_are_not_finite_and_count_get_nan(name: str, odd: float) -> None:
    """So that a GradScaler sees them: all of their group, on every way."""
    x, p = inputs()
    for spoil in (x.detach()[1, :, 0, 0], x.detach()[1]):
        spoil.fill_(odd)
        (kernels,) = torch.autograd.grad(MAPS[name](x, p)[1:].sum(), x)
        (again,) = torch.autograd.grad(MAPS[name](x, p)[1:].sum(), x, create_graph=True)
        transformed = torch.func.grad(lambda x: MAPS[name](x, p.detach())[1:].sum())(x.detach())
        for found in (kernels, again, transformed):
            assert found[1].isnan().all()
            assert not found[0].any()
