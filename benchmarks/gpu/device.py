"""A GPU, or what stands in for it in a dry run: the kernels on the host's SIMT runtime."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from timing import cuda_clock

ROOT = Path(__file__).resolve().parents[2]
STRATEGIES = ("automatic", "small", "resident", "streamed", "split")


class Gpu:
    """CUDA device 0 of torch."""

    name = "cuda"
    torch_device = "cuda"

    def __init__(self) -> None:
        import protoseg_fast

        if not torch.cuda.is_available():
            raise RuntimeError("PyTorch sees no CUDA device")
        if not protoseg_fast.cuda_available():
            raise RuntimeError(f"protoseg_fast: {protoseg_fast.build_config()['cuda']}")
        self.psf: Any = protoseg_fast

    def package(self) -> AbstractContextManager[Any]:
        """The package, to which torch's tensors on the device are just that."""
        return nullcontext(self.psf)

    def array(self, x: Any, misalignment: int = 0) -> torch.Tensor:
        """Copy with the same strides, to an address ``misalignment`` elements past 512 bytes."""
        if isinstance(x, np.ndarray):
            x = torch.from_numpy(x if min((*x.strides, 0)) >= 0 else np.ascontiguousarray(x))
        strides = x.stride()
        count = 1 + sum((n - 1) * s for n, s in zip(x.shape, strides, strict=True))
        memory = torch.zeros(count + misalignment, dtype=x.dtype, device="cuda")[misalignment:]
        memory.copy_(x.as_strided((count,), (1,), x.storage_offset()))
        return memory.as_strided(x.shape, strides, memory.storage_offset())

    def numpy(self, x: Any) -> np.ndarray:
        """Copy to the host."""
        return x.cpu().numpy()

    def synchronize(self) -> None:
        """Wait for everything."""
        torch.cuda.synchronize()

    def seconds(self, call: Callable[[], Any]) -> float:
        """Between two events around a call."""
        return cuda_clock(call)


class Simt:
    """The SIMT runtime of tests/simt: every check is real, every time is meaningless."""

    name = "simt"
    torch_device = "cpu"

    def __init__(self) -> None:
        sys.path.insert(0, str(ROOT / "tests"))
        from simt.engine import arrays, package

        self.arrays = arrays
        self.psf: Any = package.load()

    def package(self) -> AbstractContextManager[Any]:
        """The package, to which every tensor of torch is on the device."""
        from simt.engine import torch_device

        return torch_device.package_on_device()

    def array(self, x: Any, misalignment: int = 0) -> Any:
        """Copy with the same strides and alignment."""
        return self.arrays.asarray(x.detach() if isinstance(x, torch.Tensor) else x)

    def numpy(self, x: Any) -> np.ndarray:
        """Copy from the runtime's memory."""
        return self.arrays.asnumpy(x)

    def synchronize(self) -> None:
        """Nothing to wait for."""

    def seconds(self, call: Callable[[], Any]) -> float:
        """Of the host."""
        start = time.perf_counter()
        call()
        return time.perf_counter() - start


Device = Gpu | Simt


def open_device(dry_run: bool) -> Device:
    """The GPU, or the SIMT runtime."""
    return Simt() if dry_run else Gpu()


def tune(guide: Any, tuning: dict[str, Any]) -> None:
    """Force a strategy; see Tuning in cuda.hpp."""
    guide._core.core.set_tuning(
        STRATEGIES.index(tuning.get("strategy", "automatic")),
        tuning.get("cluster", 0),
        tuning.get("units", 0),
        tuning.get("cache_bytes", 0),
    )


class DeviceGuide:
    """A Guide over arrays of the host: they are copied to the device, and results back."""

    def __init__(self, device: Device, tuning: dict[str, Any], *arrays: Any) -> None:
        self.device = device
        given = [None if x is None else device.array(x) for x in arrays]
        self.guide = device.psf.Guide(*given)
        tune(self.guide, tuning)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.guide, name)

        def call(features: Any, **options: Any) -> Any:
            return self._host(method(self.device.array(features, misalignment=3), **options))

        return call

    def _host(self, result: Any) -> Any:
        if hasattr(result, "to_dict"):
            arrays = {name: self.device.numpy(x) for name, x in result.to_dict().items()}
            return SimpleNamespace(**arrays)
        return self.device.numpy(result)
