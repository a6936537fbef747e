"""Arrays on CUDA devices, as far as a machine without one can tell: messages and dispatch.

What happens with data is tested on the kernels' host runtime, in simt/test_package.py.
"""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import protoseg_fast as psf
from protoseg_fast import _arrays
from protoseg_fast.network import devices, window_sweep
from protoseg_fast.network.hooks import picker
from protoseg_fast.network.predictor import Predictor

SIZE = (1, 1, 8, 8)
# Before torch 2.6, fake tensors cannot be made plain ones.
fakes_are_plain = pytest.mark.skipif(
    not hasattr(torch.compiler, "set_stance"), reason="needs torch 2.6"
)
without_gpu = pytest.mark.skipif(psf.cuda_available(), reason="there is a GPU")


def on_cuda(shape: tuple[int, ...]) -> torch.Tensor:
    """A tensor of torch's that says it is on a GPU, without data."""
    with FakeTensorMode():
        return torch.empty(shape, device="cuda")


class OnDevice:
    """An array that exports memory of a device by DLPack."""

    def __init__(self, device_type: int) -> None:
        self.device_type = device_type

    def __dlpack__(self, **_: Any) -> Any:
        raise AssertionError("nobody should ask for the data")

    def __dlpack_device__(self) -> tuple[int, int]:
        return (self.device_type, 3)


class Interface:
    """An array of the kind of Numba's."""

    def __init__(self) -> None:
        self.__cuda_array_interface__ = {
            "shape": SIZE,
            "typestr": "<f4",
            "data": (4096, True),
            "version": 3,
        }


def test_build_config_says_why_cuda_is_not_available() -> None:
    text = psf.build_config()["cuda"]
    assert isinstance(psf.cuda_available(), bool)
    if psf.cuda_available():
        assert text.endswith(", available")
    else:
        assert text == "built without CUDA" or ", not available: " in text


@without_gpu
@pytest.mark.parametrize(
    ("array", "message"),
    [
        pytest.param(
            on_cuda(SIZE),
            r"pred is on device cuda:0, but CUDA is not available .*pred\.cpu\(\)",
            marks=fakes_are_plain,
        ),
        (OnDevice(2), r"pred is on device cuda:3, but CUDA is not available .*copy it to the CPU"),
        (OnDevice(13), r"pred is on device cuda:3, but CUDA is not available"),
        (OnDevice(10), r"pred is on a device of DLPack type 10.*CPU and on CUDA devices"),
        (Interface(), r"pred is on device cuda:0, but CUDA is not available"),
    ],
)
def test_devices_that_cannot_be_used_are_named(array: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message) as caught:
        psf.Guide(array)
    if not isinstance(array, OnDevice) or array.device_type != 10:
        assert psf.build_config()["cuda"] in str(caught.value)


def test_mixtures_of_kinds_and_devices_are_named() -> None:
    def array(module: str, device: str = "cpu") -> Any:
        return _arrays.Array(None, _arrays.Kind(module, device))

    with pytest.raises(TypeError, match=r"one device, but pred is on cuda:0, mask is on cuda:1"):
        _arrays.common_kind({"pred": array("torch", "cuda:0"), "mask": array("torch", "cuda:1")})
    with pytest.raises(TypeError, match=r"one library, but pred is torch on cuda:0, mask is cupy"):
        _arrays.common_kind({"pred": array("torch", "cuda:0"), "mask": array("cupy", "cuda:0")})
    assert _arrays.common_kind({"pred": array("cupy", "cuda:1")}).device == "cuda:1"


def test_memory_of_torch_is_of_the_guides_device() -> None:
    memory = _arrays._TorchMemory(0)
    with FakeTensorMode():
        for dtype in ("uint8", "bool", "int64", "float32", "float64"):
            made = memory.empty((2, 0, 3), dtype)
            assert (str(made.dtype), str(made.device)) == (f"torch.{dtype}", "cuda:0")
            assert made.shape == (2, 0, 3)


def test_a_guide_of_the_cpu_has_nothing_left_to_check() -> None:
    psf.Guide(np.full(SIZE, 0.5)).check()


# --- networks: what a guide is made of lies where it scores ---------------------------------------


@pytest.fixture
def scored_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the engine could be used on the GPU that fake tensors are on."""
    monkeypatch.setattr(devices, "scoring_device", lambda tensor: tensor.device)
    monkeypatch.setattr(torch, "equal", lambda first, second: True)  # fakes have no values


@fakes_are_plain
@pytest.mark.skipif(torch.version.cuda is None, reason="indexing fakes on cuda needs its kernels")
@pytest.mark.parametrize("activation", ["softmax", torch.sigmoid])
@pytest.mark.usefixtures("scored_on_cuda")
def test_truth_and_mask_follow_the_prediction(activation: Any) -> None:
    targets = {"core": (2,), "whole": (1, 2)}
    regions = targets if activation == "softmax" else {**targets, "rest": 0}
    network = Predictor(torch.nn.Identity(), activation, regions, picker("prediction", None))
    label, mask = np.zeros((2, 8, 8), np.uint8), np.ones((2, 1, 8, 8), np.float32)
    with FakeTensorMode(allow_non_fake_inputs=True):
        logits = torch.empty(2, 3, 8, 8, device="cuda")
        _, arrays = network.references(logits, label, torch.from_numpy(mask), 0)
    assert [array.device.type for array in arrays] == ["cuda"] * 3


@pytest.mark.usefixtures("scored_on_cuda")
def test_of_volumes_only_windows_are_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def guide(*arrays: Any, binarize: Any) -> Any:
        made.append([array.device.type for array in arrays if array is not None])
        return mock.Mock()

    monkeypatch.setattr(window_sweep, "Guide", guide)
    grid = psf.SlidingWindow(8, overlap=0.5).grid((12, 12))
    with FakeTensorMode():
        image = torch.empty(1, 1, 12, 12, device="cuda")
        pred = torch.empty(1, 2, 12, 12)
        sweep = mock.Mock(grid=grid, image=image)
        volume = window_sweep.VolumeGuide.of(sweep, (pred, pred > 0, None), None)
        volume.part([(0, grid.windows[0]), (0, grid.windows[1])])
    assert made == [["cpu"] * 2, ["cuda"] * 3]


@without_gpu
def test_why_scores_are_computed_on_the_cpu() -> None:
    assert devices.why_on_the_cpu("cpu") is None
    said = devices.why_on_the_cpu("cuda:1")
    assert said == (
        f"the network runs on cuda:1, scores are computed on the CPU ({psf.build_config()['cuda']})"
    )
