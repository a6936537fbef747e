"""Masked average pooling and cosine logits against the formulas of PANet, PFENet and ALPNet.

The formulas stand here in our own words, as the papers and their published code have them.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import protoseg_fast as psf


def inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Return support features, query features and a support mask of another size."""
    torch.manual_seed(0)
    return (
        torch.randn(2, 16, 9, 11, dtype=dtype),
        torch.randn(2, 16, 9, 11, dtype=dtype),
        (torch.rand(2, 1, 33, 37) < 0.4).to(dtype),
    )


def panet_pool(features: Tensor, mask: Tensor) -> Tensor:
    resized = F.interpolate(features, size=mask.shape[-2:], mode="bilinear")
    return (resized * mask).sum((2, 3)) / (mask.sum((2, 3)) + 1e-5)


def pfenet_pool(features: Tensor, mask: Tensor) -> Tensor:
    area = mask.shape[2] * mask.shape[3]
    total = F.avg_pool2d(mask, mask.shape[2:]) * area + 0.0005
    return F.avg_pool2d(features * mask, mask.shape[2:]) * area / total


def alpnet_pool(features: Tensor, mask: Tensor) -> Tensor:
    return (features * mask).sum((-1, -2)) / (mask.sum((-1, -2)) + 1e-5)


def test_pooling_as_in_panet() -> None:
    support, _, mask = inputs()
    found = psf.masked_average_pool(support, mask)
    assert found.shape == (2, 1, 16)
    torch.testing.assert_close(found[:, 0], panet_pool(support, mask), rtol=0, atol=2e-6)


def test_pooling_as_in_pfenet() -> None:
    support, _, mask = inputs()
    small = F.interpolate(mask, size=(9, 11), mode="bilinear", align_corners=True)
    found = psf.masked_average_pool(support, small, eps=5e-4)
    expected = pfenet_pool(support, small)[..., 0, 0]
    torch.testing.assert_close(found[:, 0], expected, rtol=0, atol=2e-6)


def test_pooling_and_logits_as_in_alpnet_with_masks() -> None:
    support, query, mask = inputs()
    small = F.interpolate(mask, size=(9, 11), mode="bilinear")
    found = psf.masked_average_pool(support, small)
    expected = alpnet_pool(support, small)
    torch.testing.assert_close(found[:, 0], expected, rtol=0, atol=2e-6)
    logits = psf.cosine_logits(query, found, eps=1e-4)
    cosine = F.cosine_similarity(query, expected[..., None, None], dim=1, eps=1e-4) * 20.0
    torch.testing.assert_close(logits[:, 0], cosine, rtol=0, atol=2e-5)


def test_logits_of_background_and_foreground_as_in_panet() -> None:
    support, query, mask = inputs()
    prototypes = psf.masked_average_pool(support, torch.cat([1 - mask, mask], dim=1))
    found = psf.cosine_logits(query, prototypes)
    by_hand = [panet_pool(support, m)[..., None, None] for m in (1 - mask, mask)]
    expected = torch.stack([F.cosine_similarity(query, p, dim=1) * 20 for p in by_hand], dim=1)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


def test_the_prior_of_pfenet() -> None:
    support, query, _ = inputs()
    s, q = support.flatten(2), query.flatten(2)
    norms = s.norm(2, 1)[:, :, None] * q.norm(2, 1)[:, None]
    expected = (s.transpose(1, 2) @ q / (norms + 1e-7)).max(1)[0]
    found = psf.cosine_logits(query, s.transpose(1, 2)[:, None], scale=1.0)
    torch.testing.assert_close(found.flatten(1), expected, rtol=0, atol=2e-6)


def test_softmax_pooling_as_in_alpnet_with_grids() -> None:
    _, query, _ = inputs()
    grid = torch.randn(5, 16)
    unit = grid / grid.norm(dim=1, keepdim=True).clamp(min=1e-4)
    q = query / query.norm(dim=1, keepdim=True).clamp(min=1e-4)
    distances = F.conv2d(q, unit[..., None, None]) * 20
    expected = (F.softmax(distances, dim=1) * distances).sum(1)
    found = psf.cosine_logits(query, grid[None, None], pool="softmax", eps=1e-4)
    torch.testing.assert_close(found[:, 0], expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("options", [{}, {"align_corners": True}, {"interpolation": "nearest"}])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_pooling_never_resizes_features_but_means_it(rank: int, options: dict[str, Any]) -> None:
    torch.manual_seed(rank)
    size, feature_size = (9, 7, 6)[:rank], (4, 5, 8)[:rank]
    f = torch.randn(2, 3, *feature_size, dtype=torch.float64)
    mask = torch.rand(2, 4, *size, dtype=torch.float64)
    mode = (
        "nearest" if "interpolation" in options else ["linear", "bilinear", "trilinear"][rank - 1]
    )
    corners = options.get("align_corners", None if mode == "nearest" else False)
    whole = F.interpolate(f, size=size, mode=mode, align_corners=corners)
    expected = torch.einsum("ncx,ntx->ntc", whole.flatten(2), mask.flatten(2))
    expected = expected / (mask.flatten(2).sum(2)[..., None] + 1e-5)
    found = psf.masked_average_pool(f, mask, **options)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_gradients_to_second_order() -> None:
    f = torch.randn(1, 3, 3, 4, dtype=torch.float64, requires_grad=True)
    m = torch.rand(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    p = torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(psf.masked_average_pool, (f, m))
    assert torch.autograd.gradgradcheck(psf.masked_average_pool, (f, m))
    for pool in ("max", "softmax"):

        def logits(features: Tensor, prototypes: Tensor, pool: Any = pool) -> Tensor:
            return psf.cosine_logits(features, prototypes, pool=pool)

        assert torch.autograd.gradcheck(logits, (f, p))
        assert torch.autograd.gradgradcheck(logits, (f, p))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_computed_in_float32_also_under_autocast(dtype: torch.dtype) -> None:
    support, query, mask = inputs()
    support, query = support.to(dtype), query.to(dtype)
    exact = psf.masked_average_pool(support.double(), mask)
    with torch.autocast("cpu", dtype=dtype):
        pooled = psf.masked_average_pool(support, mask)
        logits = psf.cosine_logits(query, pooled)
    assert pooled.dtype == logits.dtype == torch.float32
    torch.testing.assert_close(pooled.double(), exact, rtol=0, atol=2e-6)
    expected = psf.cosine_logits(query.double(), exact)
    torch.testing.assert_close(logits.double(), expected, rtol=0, atol=1e-4)


def test_an_empty_mask_and_a_zero_vector_give_zeros() -> None:
    support, query, mask = inputs()
    pooled = psf.masked_average_pool(support, torch.zeros_like(mask, dtype=torch.bool))
    assert not pooled.any()
    assert not psf.cosine_logits(query, pooled).any()


BAD: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    (psf.masked_average_pool, {"mask": torch.ones(1, 1, 4, 4)}, ValueError, "must have one N"),
    (psf.masked_average_pool, {"mask": torch.ones(2, 1, 4)}, ValueError, "must have one N"),
    (psf.masked_average_pool, {"mask": 1}, TypeError, "mask must be a torch tensor"),
    (psf.masked_average_pool, {"interpolation": "cubic"}, ValueError, '"linear" or "nearest"'),
    (psf.cosine_logits, {"prototypes": torch.ones(2, 3, 5)}, ValueError, "must have shape"),
    (psf.cosine_logits, {"prototypes": torch.ones(3, 3, 4)}, ValueError, "must have shape"),
    (psf.cosine_logits, {"features": torch.ones(2, 4)}, ValueError, r"\(N, C, \*size\)"),
    (psf.cosine_logits, {"features": torch.ones(4)}, ValueError, r"\(N, C, \*size\)"),
    (psf.cosine_logits, {"pool": "mean"}, ValueError, "pool must be"),
    (psf.cosine_logits, {"features": torch.ones(2, 4, 3, dtype=torch.long)}, TypeError, "floating"),
]


@pytest.mark.parametrize(("function", "change", "error", "message"), BAD)
def test_bad_input(
    function: Any, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    second = "mask" if function is psf.masked_average_pool else "prototypes"
    given = {"features": torch.ones(2, 4, 5, 5)}
    given[second] = torch.ones(2, 1, 5, 5) if second == "mask" else torch.ones(2, 1, 4)
    function(**given)
    with pytest.raises(error, match=message):
        function(**(given | change))
