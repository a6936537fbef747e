"""NumPy, torch and DLPack arrays in; the same kind out; nothing copied, nothing misread."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import array_api_strict
import numpy as np
import pytest
import torch

import protoseg_fast as psf


def arrays() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    size = (33, 35)
    pred = rng.random((2, 2, *size), dtype=np.float32)
    mask = rng.random((2, 1, *size)) < 0.9
    return rng.normal(size=(2, 6, *size)).astype(np.float32), pred, pred > 0.6, mask


def jax_array(x: np.ndarray) -> Any:
    return pytest.importorskip("jax.numpy").asarray(x)


CONVERT = {
    "torch": torch.from_numpy,
    "array_api_strict": array_api_strict.asarray,
    "jax": jax_array,
}


@pytest.mark.parametrize("library", CONVERT)
def test_results_are_of_the_callers_kind(library: str) -> None:
    given = [CONVERT[library](x) for x in arrays()]
    kind = type(given[0])
    guide, plain = psf.Guide(*given[1:]), psf.Guide(*arrays()[1:])
    f, f_plain = given[0], arrays()[0]
    results = {
        "score": (guide.sa_score(f), plain.sa_score(f_plain)),
        "map": (guide.segment(f), plain.segment(f_plain)),
        "probability": (guide.probability(f), plain.probability(f_plain)),
        "positive": (guide.prototypes(f).positive, plain.prototypes(f_plain).positive),
        "tp": (guide.sa_counts(f).tp, plain.sa_counts(f_plain).tp),
        "iou": (guide.sa_counts(f).iou, plain.sa_counts(f_plain).iou),
        "mean": (psf.mean_sa([guide.sa_score(f)]).value, psf.mean_sa([plain.sa_score(f_plain)])[0]),
    }
    for name, (found, expected) in results.items():
        assert isinstance(found, kind), name
        # JAX narrows to 32 bits unless told otherwise
        expected = expected.astype(np.asarray(found).dtype)
        np.testing.assert_array_equal(np.asarray(found), expected, err_msg=name)


def test_output_dtypes() -> None:
    f, pred, target, _ = arrays()
    assert psf.sa_score(f, pred, target).dtype == np.float64
    assert psf.segment(f, pred).dtype == bool
    assert psf.probability(f, pred).dtype == np.float32
    assert psf.probability(f.astype(np.float16), pred).dtype == np.float32
    assert psf.probability(f.astype(np.float64), pred).dtype == np.float64
    counts = psf.sa_counts(f, pred, target)
    assert {x.dtype for x in (counts.tp, counts.predicted, counts.actual)} == {np.dtype(np.int64)}
    assert psf.prototypes(f, pred).positive.dtype == np.float64


def test_read_only() -> None:
    given = arrays()
    expected = psf.sa_score(*given)
    for array in given:
        array.flags.writeable = False
    np.testing.assert_array_equal(psf.sa_score(*given), expected)


def test_unaligned_memory() -> None:
    f, pred, target, _ = arrays()
    raw = np.empty(f.nbytes + 1, np.uint8)
    unaligned = raw[1:].view(np.float32).reshape(f.shape)
    unaligned[...] = f
    assert not unaligned.flags.aligned
    np.testing.assert_array_equal(
        psf.sa_score(unaligned, pred, target), psf.sa_score(f, pred, target)
    )


def test_requires_grad_is_detached() -> None:
    f, pred, target, mask = (torch.from_numpy(x) for x in arrays())
    expected = psf.sa_score(f, pred, target, mask)
    found = psf.sa_score(f.requires_grad_(), pred.requires_grad_(), target, mask)
    assert torch.equal(found, expected)
    assert not found.requires_grad
    assert f.requires_grad  # the caller's tensor is untouched
    inside = psf.sa_score((f * 1.0), pred, target, mask)
    assert torch.equal(inside, expected)


def test_negative_bit_is_resolved() -> None:
    f, pred, *_ = (torch.from_numpy(x) for x in arrays())
    conjugate = torch.complex(torch.zeros_like(f), -f.double().float()).conj().imag
    assert conjugate.is_neg()
    assert torch.equal(conjugate, f)
    p, q = psf.prototypes(conjugate, pred), psf.prototypes(f, pred)
    assert torch.equal(p.positive, q.positive)


def test_bfloat16_is_read_in_place() -> None:
    f, pred, *_ = (torch.from_numpy(x) for x in arrays())
    half = f.bfloat16()
    found, exact = psf.prototypes(half, pred), psf.prototypes(half.float(), pred)
    assert torch.equal(found.positive, exact.positive)
    strided = half.to(memory_format=torch.channels_last)
    assert torch.equal(psf.prototypes(strided, pred).positive, exact.positive)


def test_inference_mode_and_subclasses() -> None:
    class Tagged(torch.Tensor):
        pass

    f, pred, target, _ = (torch.from_numpy(x) for x in arrays())
    expected = psf.sa_score(f, pred, target)
    with torch.inference_mode():
        assert torch.equal(psf.sa_score(f * 1, pred, target), expected)
    assert torch.equal(psf.sa_score(f.as_subclass(Tagged), pred, target), expected)
    assert torch.equal(psf.sa_score(torch.nn.Parameter(f), pred, target), expected)


def test_a_dlpack_producer_from_before_version_1() -> None:
    class Old:
        def __init__(self, array: np.ndarray) -> None:
            self.array = array

        def __dlpack__(self, stream: None = None) -> Any:
            return self.array.__dlpack__()

        def __dlpack_device__(self) -> tuple[int, int]:
            return (1, 0)

    f, pred, target, _ = arrays()
    # As numbers: before version 1.25, NumPy exports no booleans.
    found = psf.sa_score(Old(f), Old(pred), Old(target.astype(np.uint8)))
    assert isinstance(found, np.ndarray)  # for want of a library to return to
    np.testing.assert_array_equal(found, psf.sa_score(f, pred, target))


def test_a_guide_keeps_its_arrays_alive() -> None:
    f, pred, target, mask = arrays()
    expected = psf.Guide(pred, target, mask).sa_score(f)
    guide = psf.Guide(pred.copy(), target.copy(), mask.copy())
    junk = [np.full(pred.shape, 7.0) for _ in range(20)]
    np.testing.assert_array_equal(guide.sa_score(f), expected)
    del junk


def test_large_features_are_not_copied() -> None:
    f = torch.zeros(1, 64, 512, 512, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    pred = torch.rand(1, 1, 512, 512)
    guide = psf.Guide(pred)
    before = guide.nbytes
    guide.sa_counts(f, groups="unit")
    assert guide.nbytes - before <= 2 * pred.numel() * 4


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_counts_and_prototypes_pickle_and_copy(library: str) -> None:
    f, pred, target, _ = arrays()
    if library == "torch":
        f, pred, target = (torch.from_numpy(x) for x in (f, pred, target))
    for value in (psf.sa_counts(f, pred, target), psf.prototypes(f, pred)):
        for again in (pickle.loads(pickle.dumps(value)), copy.deepcopy(value)):
            assert type(again) is type(value)
            for name, array in value.to_dict().items():
                np.testing.assert_array_equal(again.to_dict()[name], array)
        assert repr(value).startswith(type(value).__name__ + "(N=2, ")
