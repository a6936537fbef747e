"""torch's tensors as if they were on a CUDA device, for what the package does with those.

with torch_device.package_on_device() as psf:                       # the copy on the runtime
    sam = psf.segmentation_ability_map(network, image, target=label)

The network runs on the CPU; guides, counts and prototypes are "on the device": kernels work on
copies in the runtime's memory, and what they return is tensors that lie there.
"""

from __future__ import annotations

import ctypes
import importlib
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from unittest import mock

import numpy as np
import torch

from simt.engine import arrays, package

DEVICE = "cuda:0"


class TorchMemory:
    """As the package's own for torch: `DeviceMemory`, on the runtime.

    Attributes:
        fetched: how often arrays were copied to the host, which on a GPU waits for it.
    """

    module = torch

    def __init__(self) -> None:
        self.fetched = 0
        self._here: weakref.WeakValueDictionary[int, arrays.Memory] = weakref.WeakValueDictionary()
        self._copies: list[arrays.ndarray] = []

    def empty(self, shape: tuple[int, ...], dtype: str) -> torch.Tensor:
        kind = getattr(torch, dtype)
        count = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        memory = arrays.Memory(max(1, count), "workspace" if dtype == "uint8" else "out")
        if count == 0:
            return torch.empty(shape, dtype=kind)
        self._here[memory.ptr] = memory
        buffer = (ctypes.c_char * count).from_address(memory.ptr)
        buffer.memory = memory  # held as long as the tensor's storage is
        return torch.frombuffer(buffer, dtype=kind).reshape(shape)

    def pointer(self, tensor: torch.Tensor) -> int:
        assert tensor.is_contiguous()
        if tensor.data_ptr() in self._here:
            return tensor.data_ptr()
        # Made by torch, which on a GPU would have made it there.
        self._copies = [*self._copies[-20:], arrays.asarray(tensor)]
        return self._copies[-1].data.ptr

    def keep(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.contiguous()

    def from_numpy(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array)

    def to_numpy(self, tensor: torch.Tensor) -> np.ndarray:
        self.fetched += 1
        return tensor.numpy().copy()

    def current(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def stream(self) -> int:
        return 0

    def record(self) -> Any:
        return None

    def wait(self, event: Any) -> None: ...


@contextmanager
def package_on_device(memory: TorchMemory | None = None) -> Iterator[Any]:
    """The package's copy, to which every tensor is on the device; imports inside find it."""
    kept = TorchMemory() if memory is None else memory
    with package.active() as psf:
        own, devices = (
            importlib.import_module(f"protoseg_fast.{name}")
            for name in ("_arrays", "network.devices")
        )
        find = own._memory

        def inspect(name: str, tensor: Any, _torch: Any) -> Any:
            kind = own.Kind("torch", DEVICE)
            return own.Array(arrays.asarray(tensor.detach(), name).__dlpack__(), kind)

        with (
            mock.patch.object(own, "_inspect_torch", inspect),
            mock.patch.object(
                own, "_memory", lambda module, i: kept if module == "torch" else find(module, i)
            ),
            mock.patch.object(devices, "scoring_device", return_value=torch.device(DEVICE)),
            mock.patch.object(devices, "move", lambda tensor, _device: tensor),
        ):
            yield psf
