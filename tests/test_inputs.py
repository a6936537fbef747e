"""Bad input gets a TypeError or ValueError that says what was expected, what came, what to do."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

import protoseg_fast as psf

N, C, T, SIZE = 2, 6, 2, (8, 9)


def good() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "features": rng.normal(size=(N, C, *SIZE)).astype(np.float32),
        "pred": rng.random((N, T, *SIZE), dtype=np.float32),
        "target": rng.random((N, T, *SIZE)) < 0.5,
        "mask": np.ones((N, 1, *SIZE), bool),
    }


def with_value(name: str, value: float) -> np.ndarray:
    array: np.ndarray = good()[name].astype(np.float32)
    array[1, 0, 3, 3] = value
    return array


ARGUMENTS: list[tuple[str, Any, type[Exception], str]] = [
    # features
    ("features", [[1.0]], TypeError, "features must be .*got list"),
    ("features", None, TypeError, "features must be .*got NoneType"),
    ("features", "features", TypeError, "features must be .*got str"),
    ("features", np.float32(1), TypeError, "features must be .*got float32"),
    ("features", np.ones((N, C, *SIZE), np.int32), TypeError, "features must be float16.*int32"),
    ("features", np.ones((N, C, *SIZE), bool), TypeError, "features must be float16.*bool"),
    ("features", np.ones((N, C, *SIZE), complex), TypeError, "features .*complex128"),
    ("features", np.ones((N, C, *SIZE), object), TypeError, "features .*object"),
    ("features", np.ones((N, C, *SIZE), "U3"), TypeError, "features .*<U3"),
    ("features", np.ones((N, C, *SIZE), "M8[s]"), TypeError, "features .*datetime64"),
    ("features", np.ones((N, C, *SIZE), np.longdouble), TypeError, "features .*float64"),
    ("features", np.ones((N, C, *SIZE), ">f4"), TypeError, "features .*byte order.*astype"),
    ("features", np.ma.ones((N, C, *SIZE)), TypeError, "features is a masked array.*mask="),
    ("features", np.float32([1, 2]), ValueError, r"features must have 3 to 5 axes.*\(2\)"),
    ("features", np.ones((N, C)), ValueError, "features must have 3 to 5 axes"),
    ("features", np.ones((1,) * 6), ValueError, "features must have 3 to 5 axes.*6"),
    ("features", np.ones((N, C, 8)), ValueError, "same number of spatial axes"),
    ("features", np.ones((N + 1, C, *SIZE)), ValueError, "same number of images N"),
    ("features", np.ones((N, 0, *SIZE)), ValueError, "features must not be empty.*0"),
    ("features", np.ones((N, C, 0, 9)), ValueError, "features must not be empty"),
    ("features", torch.ones(N, C, *SIZE), TypeError, "features come from torch.*numpy"),
    # pred
    ("pred", None, TypeError, "pred must be .*got NoneType"),
    ("pred", with_value("pred", 1.0000001), ValueError, r"span \[0\.\d+, 1\.00000011920\d+\]"),
    ("pred", np.ones((N, T, *SIZE), int), TypeError, "pred .*floating.*int64"),
    ("pred", np.ones((N, T, *SIZE), bool), TypeError, "pred .*floating.*bool"),
    ("pred", with_value("pred", 4.5), ValueError, r"pred .*\[.*4\.5\].*sigmoid.*softmax"),
    ("pred", with_value("pred", -0.1), ValueError, r"pred .*\[-0\.1.*sigmoid"),
    ("pred", with_value("pred", np.inf), ValueError, "pred .*inf.*sigmoid"),
    ("pred", with_value("pred", np.nan), ValueError, "pred contains NaN.*sigmoid"),
    ("pred", np.ones((N, T, 0, 9)), ValueError, "pred must not be empty"),
    ("pred", np.ones((N, T)), ValueError, "pred must have 3 to 5 axes"),
    ("pred", torch.ones(N, T, *SIZE), TypeError, "pred is torch, target is numpy"),
    # target
    ("target", np.ones((N, T, 4, 4)), ValueError, r"target must have shape \(2, 2, 8, 9\).*4, 4"),
    ("target", np.ones((N, T + 1, *SIZE)), ValueError, "target must have shape"),
    ("target", np.ones((N, *SIZE)), ValueError, "target must have shape"),
    ("target", with_value("target", 2), ValueError, "target must be binary.*target == k"),
    ("target", with_value("target", 0.5), ValueError, "target must be binary"),
    ("target", with_value("target", np.nan), ValueError, "target must be binary"),
    ("target", np.ones((N, T, *SIZE), complex), TypeError, "target .*complex"),
    # mask
    ("mask", np.ones((N, T, *SIZE)), ValueError, r"mask must have shape \(2, 1, 8, 9\)"),
    ("mask", np.ones((1, 1, *SIZE)), ValueError, "mask must have shape"),
    ("mask", with_value("mask", -1), ValueError, r"mask .*>= 0.*\[-1"),
    ("mask", with_value("mask", np.nan), ValueError, "mask contains NaN"),
    ("mask", with_value("mask", np.inf), ValueError, "mask .*finite"),
    ("mask", with_value("mask", 255).astype(np.uint8), ValueError, "integer mask.*255.*mask > 0"),
    ("mask", "brain", TypeError, "mask must be .*got str"),
    # options
    ("groups", 4, ValueError, "groups must be a positive divisor of the 6 channels.*got 4"),
    ("groups", 0, ValueError, "groups must be a positive divisor"),
    ("groups", -1, ValueError, "groups must be a positive divisor"),
    ("groups", 10**30, ValueError, "groups must divide"),
    ("groups", "channel", ValueError, "groups must be .*'channel'"),
    ("groups", 2.0, TypeError, "groups must be an int.*2.0"),
    ("groups", True, TypeError, "groups must be an int.*True"),
    ("groups", None, TypeError, "groups must be an int.*None"),
    ("metric", "manhattan", ValueError, 'metric must be one of "euclidean", "cosine".*manhattan'),
    ("metric", None, TypeError, "metric must be a string"),
    ("interpolation", "cubic", ValueError, 'interpolation must be one of "linear", "nearest"'),
    ("interpolation", 3, TypeError, "interpolation must be a string"),
    ("align_corners", "yes", TypeError, "align_corners must be True or False"),
    ("align_corners", None, TypeError, "align_corners must be True or False"),
    ("binarize", 2, ValueError, r"binarize must be a threshold in \[0, 1\].*2"),
    ("binarize", float("nan"), ValueError, "binarize must be a threshold"),
    ("binarize", "half", TypeError, "binarize must be a number"),
    ("empty", None, TypeError, "empty must be a string"),
    ("empty", "skip", ValueError, 'empty must be one of "nan", "monai", "one", "zero"'),
]


@pytest.mark.parametrize(("name", "value", "error", "message"), ARGUMENTS)
def test_bad_argument(name: str, value: Any, error: type[Exception], message: str) -> None:
    arguments = good() | {name: value}
    with pytest.raises(error, match=message) as caught:
        psf.sa_score(**arguments)
    assert str(caught.value).endswith(".")
    psf.sa_score(**good())  # and nothing is left broken


TENSORS: list[tuple[Any, str]] = [
    (torch.ones(N, C, *SIZE).to_sparse(), "features must be a dense.*to_dense"),
    (torch.ones(N, C, *SIZE, device="meta"), r"features is on device meta.*\.cpu\(\)"),
    (torch.ones(N, C, *SIZE, dtype=torch.complex64), "features must be real"),
    (torch.ones(N, C, *SIZE).to(torch.float8_e4m3fn), r"features .*float8.*\.float\(\)"),
    (torch.ones(N, C, *SIZE).long(), "features must be float16.*int64"),
]


@pytest.mark.parametrize(("tensor", "message"), TENSORS)
def test_bad_tensor(tensor: torch.Tensor, message: str) -> None:
    arrays = {k: torch.from_numpy(v) for k, v in good().items()}
    with pytest.raises(TypeError, match=message):
        psf.sa_score(**(arrays | {"features": tensor}))


def test_nearest_has_no_align_corners() -> None:
    with pytest.raises(ValueError, match="align_corners=True has no meaning"):
        psf.sa_score(**good(), interpolation="nearest", align_corners=True)


@pytest.mark.parametrize("temperature", [0, -1, float("inf"), float("nan")])
def test_temperature_is_positive(temperature: float) -> None:
    f, p = good()["features"], good()["pred"]
    with pytest.raises(ValueError, match="temperature must be a positive"):
        psf.probability(f, p, metric="cosine", temperature=temperature)


def test_temperature_is_for_the_cosine() -> None:
    f, p = good()["features"], good()["pred"]
    with pytest.raises(ValueError, match="cosine margin only"):
        psf.probability(f, p, temperature=2.0)
    hot, cold = (psf.probability(f, p, metric="cosine", temperature=t) for t in (1.0, 20.0))
    margin = np.log(hot / (1 - hot)).astype(np.float64)
    np.testing.assert_allclose(cold, 1 / (1 + np.exp(-20 * margin)), atol=1e-4)


def test_unknown_option() -> None:
    with pytest.raises(TypeError, match="sigma"):
        psf.sa_score(**good(), sigma=1)


@pytest.mark.parametrize(
    ("scores", "error"),
    [
        ([], ValueError),
        ([np.ones((1, 1))], ValueError),
        ([np.ones((1, 1, 1)), np.ones((2, 1, 1))], ValueError),
        ([np.ones((1, 1, 1)), torch.ones(1, 1, 1)], TypeError),
        ([0.5], TypeError),
        (0.5, TypeError),
    ],
)
def test_mean_sa_rejects(scores: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        psf.mean_sa(scores)


def test_unknown_isa() -> None:
    with pytest.raises(ValueError, match=r"'mmx'.*choose one of: baseline"):
        psf.set_isa("mmx")
    assert psf.build_config()["isa"] in psf.available_isas()


@pytest.mark.parametrize("name", ["mmx", "AVX2 "])
def test_unknown_isa_in_the_environment(name: str) -> None:
    code = "import protoseg_fast as p, numpy as n; x = n.ones((1, 1, 4)); p.sa_score(x, x, x)"
    environment = {"PROTOSEG_ISA": name, "PATH": "/usr/bin:/bin"}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert run.returncode == 1
    assert "PROTOSEG_ISA" in run.stderr
    assert "choose one of: baseline" in run.stderr


def test_inputs_are_never_written_to() -> None:
    arguments = good()
    before = {name: array.copy() for name, array in arguments.items()}
    for array in arguments.values():
        array.flags.writeable = False
    psf.sa_score(**arguments, groups="unit", binarize=0.4)
    psf.probability(arguments["features"], arguments["pred"], metric="cosine")
    for name, array in arguments.items():
        np.testing.assert_array_equal(array, before[name])
