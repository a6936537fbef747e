"""Gradients through the package's own bindings on the runtime, against those of the CPU engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import protoseg_fast as cpu
from simt.engine import arrays, library

pytestmark = pytest.mark.usefixtures("nothing_is_left")

SIZE = (11, 14)


def inputs(feature_size: tuple[int, ...] = SIZE, dtype: str = "float32") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "features": (1 + rng.normal(size=(2, 6, *feature_size))).astype(dtype),
        "pred": rng.uniform(0.05, 0.95, (2, 3, *SIZE)).astype(np.float32),
        "mask": rng.uniform(0.1, 1, (2, 1, *SIZE)).astype(np.float32),
    }


OPTIONS: dict[str, Any] = {
    "groups": 2,
    "metric": "euclidean",
    "interpolation": "linear",
    "align_corners": False,
    "temperature": 1.0,
}
COSINE = OPTIONS | {"metric": "cosine", "temperature": 3.0}


def training_step(
    library_: Any, given: dict[str, Any], options: dict[str, Any], empty: Any, wanted: str
) -> list[Any]:
    """The margin, and the gradients asked for, of the sum of margin x (0, 1, 2, ...) / count."""
    export = lambda x: library_._arrays.inspect("x", x).exported  # noqa: E731
    guide = library_.Guide(given["pred"], None, given["mask"])
    options_ = library_._core.Options(**options)
    tape = guide._core.margin_tape(export(given["features"]), options_)
    values = np.asarray(tape[0])
    grad = (np.arange(values.size) / values.size).astype(values.dtype)
    if not isinstance(tape[0], np.ndarray):
        grad = arrays.asarray(grad)
        flat = [arrays.asarray(arrays.asnumpy(x).reshape(-1)) for x in tape]
    else:
        flat = [x.reshape(-1) for x in tape]
    out = {name: empty(given[name].shape, str(given[name].dtype)) for name in wanted.split()}
    targets = [export(out[name]) if name in out else None for name in ("features", "pred", "mask")]
    guide._core.margin_backward(
        export(given["features"]), options_, *(export(x) for x in (*flat, grad)), *targets
    )
    return [values, *(np.asarray(x) for x in out.values())]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("feature_size", [SIZE, (5, 8)])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_gradients_are_those_of_the_cpu(
    psf: Any, metric: str, feature_size: tuple[int, ...], dtype: str
) -> None:
    host = inputs(feature_size, dtype)
    device = {name: arrays.asarray(x, name) for name, x in host.items()}
    options = COSINE if metric == "cosine" else OPTIONS
    found = training_step(psf, device, options, arrays.empty, "features pred mask")
    expected = training_step(cpu, host, options, np.empty, "features pred mask")
    tolerance = 1e-3 if dtype == "float16" else 2e-5
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


def test_gradients_have_the_same_bits_on_every_schedule(psf: Any) -> None:
    device = {name: arrays.asarray(x, name) for name, x in inputs((5, 8)).items()}
    results = set()
    for seed in range(4):
        library.memory().device_seed(seed)
        found = training_step(psf, device, COSINE, arrays.empty, "features pred mask")
        results.add(b"".join(x.tobytes() for x in found))
    assert len(results) == 1


@pytest.mark.parametrize("wanted", ["features", "pred", "mask"])
def test_only_what_is_asked_for(psf: Any, wanted: str) -> None:
    device = {name: arrays.asarray(x, name) for name, x in inputs().items()}
    names = ["features", "pred", "mask"]
    everything = training_step(psf, device, COSINE, arrays.empty, " ".join(names))
    (_, found) = training_step(psf, device, COSINE, arrays.empty, wanted)
    scale = np.abs(found).max()
    np.testing.assert_allclose(found, everything[1 + names.index(wanted)], atol=1e-6 * scale)


def test_what_does_not_fit_is_refused_with_a_reason(psf: Any) -> None:
    device = {name: arrays.asarray(x, name) for name, x in inputs().items()}
    with pytest.raises(ValueError, match="positive divisor"):
        training_step(psf, device, OPTIONS | {"groups": 4}, arrays.empty, "features")

    def narrow(shape: tuple[int, ...], _: str) -> Any:
        return arrays.empty(shape, "float16")

    with pytest.raises(TypeError, match="must have their dtype on CUDA, float32, got float16"):
        training_step(psf, device, OPTIONS, narrow, "features")
    with pytest.raises(TypeError, match="is in CPU memory, but the guide is on a CUDA device"):
        training_step(psf, device, OPTIONS, np.empty, "features")
    features, *wrong = (
        psf._arrays.inspect("x", x).exported
        for x in (device["features"], *[arrays.asarray(np.zeros(3, np.float32))] * 4)
    )
    guide = psf.Guide(device["pred"])._core
    options = psf._core.Options(**OPTIONS)
    with pytest.raises(ValueError, match="not what margin_tape returned"):
        guide.margin_backward(features, options, *wrong, None, None, None)
