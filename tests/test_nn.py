"""The drop-in module against the published formula: values, dtypes, gradients, errors."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch

import protoseg_fast as psf
from published import published_softmax

SIZES = {"1d": (50,), "2d": (17, 23), "3d": (6, 7, 8)}
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-10}


def inputs(
    ndims: str, dtype: torch.dtype, mask: bool, channels: int = 12, offset: float = 0.0
) -> list[torch.Tensor]:
    torch.manual_seed(0)
    size = SIZES[ndims]
    given = [
        torch.randn(2, channels, *size, dtype=dtype) + offset,
        torch.rand(2, 1, *size, dtype=dtype) * 0.98 + 0.01,
    ]
    if mask:
        given.append((torch.rand(2, 1, *size) < 0.8).to(dtype))
    return given


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("ndims", SIZES)
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_values_are_the_published_ones(
    ndims: str, dtype: torch.dtype, mask: bool, offset: float
) -> None:
    given = inputs(ndims, dtype, mask, offset=offset)
    exact = published_softmax(*(x.double() for x in given))
    module = psf.ProtoSeg(ndims)
    for found in (module(*given), module(given[0].clone().requires_grad_(), *given[1:])):
        assert found.shape == (2, 2, *SIZES[ndims])
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), exact, rtol=0, atol=TOLERANCE[dtype])
    torch.testing.assert_close(module(*given).sum(1), torch.ones(2, *SIZES[ndims], dtype=dtype))


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("ndims", SIZES)
def test_gradients_are_the_published_ones(ndims: str, dtype: torch.dtype, mask: bool) -> None:
    # The published formula in float64: in float32 its own rounding exceeds the tolerance.
    grads = []
    for forward, work in ((psf.ProtoSeg(ndims), dtype), (published_softmax, torch.float64)):
        given = [x.to(work).requires_grad_() for x in inputs(ndims, dtype, mask)]
        out = forward(*given)
        weight = torch.linspace(-1, 1, out.numel(), dtype=work).reshape(out.shape)
        (out * weight).sum().backward()
        grads.append([x.grad.double() for x in given])
    for found, expected in zip(*grads, strict=True):
        scale = expected.abs().max()
        torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=TOLERANCE[dtype])


def test_gradcheck_to_second_order() -> None:
    x, p, m = (t[:1, :3, :4, :5].clone() for t in inputs("2d", torch.float64, True))
    x.requires_grad_()
    p.requires_grad_()
    assert torch.autograd.gradcheck(psf.ProtoSeg("2d"), (x, p, m))
    assert torch.autograd.gradgradcheck(psf.ProtoSeg("2d"), (x, p, m))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    given = inputs("2d", dtype, False)
    exact = published_softmax(*(x.double() for x in given))
    module = psf.ProtoSeg("2d")
    for found in (module(*given), module(given[0].clone().requires_grad_(), given[1])):
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), exact, rtol=0, atol=torch.finfo(dtype).eps)


@pytest.mark.parametrize(
    ("x", "p", "m"),
    [
        (torch.float32, torch.float64, None),
        (torch.float64, torch.float32, None),
        (torch.float16, torch.float32, torch.float32),
        (torch.float32, torch.float32, torch.bool),
        (torch.float32, torch.float32, torch.uint8),
    ],
)
def test_dtypes_promote_as_in_the_published_module(
    x: torch.dtype, p: torch.dtype, m: torch.dtype | None
) -> None:
    xfeat, pred, mask = (
        t.to(d) if d else None
        for t, d in zip(inputs("2d", torch.float32, True), (x, p, m), strict=True)
    )
    expected = published_softmax(xfeat, pred, *([] if mask is None else [mask]))
    found = psf.ProtoSeg("2d")(xfeat, pred, mask)
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found.double(), expected.double(), rtol=0, atol=2e-5)


def test_channels_last_and_strided() -> None:
    xfeat, pred = inputs("2d", torch.float32, False)
    expected = psf.ProtoSeg("2d")(xfeat, pred)
    last = xfeat.to(memory_format=torch.channels_last)
    assert torch.equal(psf.ProtoSeg("2d")(last, pred), expected)
    wide = torch.stack([xfeat, xfeat], dim=-1)[..., 0]
    assert torch.equal(psf.ProtoSeg("2d")(wide, pred), expected)


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("grad", [False, True])
def test_an_empty_guide_gives_nan(value: float, grad: bool) -> None:
    xfeat, pred = inputs("2d", torch.float32, False)
    pred[0] = value
    found = psf.ProtoSeg("2d")(xfeat.requires_grad_(grad), pred)
    assert found[0].isnan().all()
    assert not found[1].isnan().any()


def test_training_takes_less_memory_than_the_published_module() -> None:
    # bytes that autograd keeps for the backward pass
    def kept(forward: Any) -> int:
        storages = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        xfeat = torch.randn(1, 64, 64, 64, requires_grad=True)
        pred = torch.rand(1, 1, 64, 64, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            forward(xfeat, pred)
        return sum(storages.values())

    features = 64 * 64 * 64 * 4
    assert kept(psf.ProtoSeg("2d")) <= 1.3 * features
    assert kept(published_softmax) > 2.5 * features


@pytest.mark.parametrize("ndims", ["4d", "2D", 2, None, "", ["2d"]])
def test_unknown_ndims(ndims: Any) -> None:
    with pytest.raises(ValueError, match="ndims must be one of"):
        psf.ProtoSeg(ndims)


def test_constructor_defaults_and_state() -> None:
    module = psf.ProtoSeg()
    assert module.dims == (2, 3)
    assert not module.state_dict()
    assert repr(module) == "ProtoSeg(ndims='2d')"
    for again in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert again.ndims == "2d"


BAD = [
    ({"xfeat": torch.ones(2, 4, 8)}, ValueError, "xfeat must have 2 . 2 axes"),
    ({"pred": torch.ones(2, 2, 8, 8)}, ValueError, r"pred must have shape \(N, 1, \*size\)"),
    ({"pred": torch.ones(2, 1, 4, 4)}, ValueError, "resize xfeat.*probability"),
    ({"mask": torch.ones(2, 4, 8, 8)}, ValueError, "mask must have shape"),
    ({"pred": torch.ones(2, 1, 8, 8) * 3}, ValueError, "sigmoid"),
    ({"pred": torch.ones(2, 1, 8, 8, dtype=torch.long)}, TypeError, "pred must be floating"),
    ({"xfeat": torch.ones(2, 4, 8, 8, dtype=torch.long)}, TypeError, "xfeat must be floating"),
    ({"pred": [0.5]}, TypeError, "pred must be a torch tensor, got list"),
    ({"pred": torch.ones(2, 1, 8, 8, device="meta")}, TypeError, "on one device"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD)
@pytest.mark.parametrize("grad", [False, True])
def test_bad_input(
    change: dict[str, Any], error: type[Exception], message: str, grad: bool
) -> None:
    given: dict[str, Any] = {
        "xfeat": torch.rand(2, 4, 8, 8, requires_grad=grad),
        "pred": torch.rand(2, 1, 8, 8),
        "mask": None,
    }
    psf.ProtoSeg("2d")(**given)
    with pytest.raises(error, match=message):
        psf.ProtoSeg("2d")(**(given | change))
