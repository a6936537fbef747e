"""Operators as PyTorch meets them: opcheck, torch.compile, torch.export, autocast, torch.func."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.fx.experimental.proxy_tensor

import protoseg_fast as psf
from protoseg_fast import torch_ops
from published import published_softmax


def sample(
    metric: str = "euclidean", feature_size: tuple[int, int] = (5, 7), groups: int = 2
) -> tuple[Any, ...]:
    torch.manual_seed(0)
    tensors = (torch.randn(2, 6, *feature_size), torch.rand(2, 2, 9, 11), torch.rand(2, 1, 9, 11))
    given = [x.requires_grad_() for x in tensors]
    return (*given, groups, metric, 1.0, "linear", False, None)


@pytest.mark.parametrize("feature_size", [(5, 7), (9, 11)])
@pytest.mark.parametrize("groups", [2, 6])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_opcheck(metric: str, groups: int, feature_size: tuple[int, int]) -> None:
    given = sample(metric, feature_size, groups)
    ops = torch.ops.protoseg_fast
    torch.library.opcheck(ops.margin.default, given)
    tensors, options = [x.detach() for x in given[:3]], given[3:]
    tape = [x.detach() for x in ops.margin(*given)]
    backward = (torch.randn_like(tape[0]), *tensors, *tape, *options, [True, True, False])
    torch.library.opcheck(ops.margin_backward.default, backward)


def test_opcheck_of_the_sigmoid() -> None:
    values = torch.randn(2, 3, 1, 4, 5)
    values[0] = torch.nan
    ops, grad = torch.ops.protoseg_fast, (values > 0).float()
    torch.library.opcheck(ops.sigmoid.default, (values[1:].clone().requires_grad_(),))
    for given in (grad, grad[..., :1].expand_as(grad)):
        torch.library.opcheck(ops.sigmoid_backward.default, (given, values.sigmoid()))


def test_traced_and_exported_modules_are_saved(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1))  # whose weights require grad

    class Segmented(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.proto = model, psf.ProtoSeg("2d")

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            features = self.model(x)
            return self.proto(features, features[:, :1].sigmoid())

    module, image = Segmented(), torch.rand(2, 1, 8, 9)
    torch.jit.trace(module, image).save(tmp_path / "traced.pt")
    torch.testing.assert_close(torch.jit.load(tmp_path / "traced.pt")(image), module(image))
    torch.export.save(torch.export.export(module, (image,)), tmp_path / "exported.pt2")
    again = torch.export.load(tmp_path / "exported.pt2").module()
    torch.testing.assert_close(again(image), module(image))


def test_a_training_step_is_recorded_by_make_fx() -> None:
    x, p, m = sample()[:3]

    def step(features: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(psf.probability(features, p, m).square().sum(), features)[0]

    recorded = torch.fx.experimental.proxy_tensor.make_fx(step)(x)
    torch.testing.assert_close(recorded(x), step(x))


def test_what_is_differentiable_calls_the_operator() -> None:
    x, p, m = sample()[:3]
    for out in (psf.probability(x, p, m), psf.ProtoSeg("2d")(x[:, :, :4, :4], p[:, :1, :4, :4])):
        names, todo = set(), [out.grad_fn]
        while todo:
            node = todo.pop()
            names.add(type(node).__name__)
            todo += [n for n, _ in node.next_functions if n is not None]
        assert any("protoseg_fast_margin" in name for name in names), names


def loss(x: torch.Tensor, p: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    return psf.probability(x, p, m, groups="unit").square().sum()


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled_by_inductor_in_one_graph(dynamic: bool) -> None:
    torch.compiler.reset()
    compiled = torch.compile(loss, fullgraph=True, dynamic=dynamic)
    for feature_size in [(5, 7), (9, 11), (6, 4)]:
        given = sample(feature_size=feature_size)[:3]
        expected = torch.autograd.grad(loss(*given), given)
        found = torch.autograd.grad(compiled(*given), given)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.slow
def test_the_module_is_compiled_in_one_graph() -> None:
    torch.compiler.reset()
    module = psf.ProtoSeg("2d")
    compiled = torch.compile(module, fullgraph=True)
    x, p, m = sample(feature_size=(9, 11))[:3]
    given = (x, p[:, :1].detach().requires_grad_(), m)
    for with_grad in (True, False):
        with torch.set_grad_enabled(with_grad):
            torch.testing.assert_close(compiled(*given), module(*given))
    expected = torch.autograd.grad(module(*given).square().sum(), given)
    found = torch.autograd.grad(compiled(*given).square().sum(), given)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [False, True])
def test_exported(dynamic: bool) -> None:
    module = psf.ProtoSeg("2d")
    given = (torch.randn(2, 6, 9, 11), torch.rand(2, 1, 9, 11))
    dims = {0: torch.export.Dim("n"), 2: torch.export.Dim("h"), 3: torch.export.Dim("w")}
    shapes = {"xfeat": dims, "pred": dims} if dynamic else None
    program = torch.export.export(module, given, dynamic_shapes=shapes)
    assert "protoseg_fast.margin" in str(program.graph)
    other = (torch.randn(3, 6, 8, 5), torch.rand(3, 1, 8, 5)) if dynamic else given
    torch.testing.assert_close(program.module()(*other), module(*other))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_keeps_halves_and_accumulates_in_float32(dtype: torch.dtype) -> None:
    x, p = torch.randn(2, 40, 9, 11), torch.rand(2, 1, 9, 11)
    weight = torch.randn(30, 40, 1, 1, requires_grad=True)
    with torch.autocast("cpu", dtype=dtype):
        features = torch.nn.functional.conv2d(x, weight)
        assert features.dtype == dtype
        out = psf.ProtoSeg("2d")(features, p)
        values = torch_ops.margin(features, p.to(dtype))
        half_pred = psf.ProtoSeg("2d")(features, p.to(dtype))
    assert out.dtype == values.dtype == half_pred.dtype == torch.float32
    exact = published_softmax(features.detach().double(), p.double())
    torch.testing.assert_close(out.double(), exact, rtol=0, atol=1e-5)
    out[:, 1].square().sum().backward()
    assert weight.grad is not None
    assert weight.grad.isfinite().all()


def test_transforms_of_torch_func() -> None:
    x, p = (t.detach().double() for t in sample(feature_size=(9, 11))[:2])

    def value(features: torch.Tensor) -> torch.Tensor:
        return psf.probability(features, p).square().sum()

    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(value(leaf), leaf)
    torch.testing.assert_close(torch.func.grad(value)(x), expected)
    direction = torch.randn_like(x)
    _, tangent = torch.func.jvp(value, (x,), (direction,))
    torch.testing.assert_close(tangent, (expected * direction).sum())


def test_thousands_of_images() -> None:
    x, p = torch.randn(3000, 4, 6, 6, requires_grad=True), torch.rand(3000, 1, 6, 6)
    out = psf.ProtoSeg("2d")(x, p)
    expected = published_softmax(x.double(), p.double())
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=2e-5)
    (found,) = torch.autograd.grad(out[:, 1].sum(), x)
    (exact,) = torch.autograd.grad(expected[:, 1].sum(), x)
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-5)


def test_the_module_is_saved_copied_and_not_scripted() -> None:
    module = psf.ProtoSeg("3d")
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    for again in (torch.load(buffer, weights_only=False), copy.deepcopy(module)):
        assert repr(again) == "ProtoSeg(ndims='3d')"
        assert not again.state_dict()
    with pytest.raises(RuntimeError, match=r"torch\.export"):
        torch.jit.script(module)
