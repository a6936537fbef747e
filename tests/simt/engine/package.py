"""The package on the runtime: `protoseg_fast` as the checkout has it, with its `_core` from here.

psf = package.load()
guide = psf.Guide(arrays.asarray(pred), arrays.asarray(target))     # "on a CUDA device"
"""

from __future__ import annotations

import functools
import importlib
import importlib.machinery
import importlib.util
import json
import sys
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from simt import build
from simt.engine import arrays, library
from tunings import STRATEGIES


def _modules() -> dict[str, ModuleType]:
    return {
        name: module
        for name, module in sys.modules.items()
        if name.partition(".")[0] == "protoseg_fast"
    }


_copies: dict[str, ModuleType] = {}  # the copy's modules, as far as they were imported


@contextmanager
def _replaced() -> Iterator[None]:
    """Within the block, imports find the copy's modules, and add to them."""
    installed = _modules()
    for module in installed:
        del sys.modules[module]
    sys.modules.update(_copies)
    sys.path.insert(0, str(build.ROOT / "python"))
    try:
        yield
    finally:
        sys.path.remove(str(build.ROOT / "python"))
        _copies.update(_modules())
        for module in _modules():
            del sys.modules[module]
        sys.modules.update(installed)


@functools.cache
def load() -> Any:
    """A copy of the package beside the one that is installed."""
    name = "simt.engine._core"  # another one, as pybind11 makes a module of a name but once
    loader = importlib.machinery.ExtensionFileLoader(name, str(library.path()))
    spec = importlib.util.spec_from_file_location(name, library.path(), loader=loader)
    assert spec is not None
    with _replaced():
        core = importlib.util.module_from_spec(spec)
        loader.exec_module(core)
        sys.modules["protoseg_fast._core"] = core
        package = importlib.import_module("protoseg_fast")
        importlib.import_module("protoseg_fast._arrays")._cupy = lambda: arrays
    return package


@contextmanager
def active() -> Iterator[Any]:
    """The copy; within the block, what it imports only when it is used is the copy's, too."""
    package = load()
    with _replaced():
        yield package


def _on_host(result: Any) -> Any:
    """Arrays as NumPy arrays; counts and prototypes as tuples of them with the same names."""
    if isinstance(result, arrays.ndarray):
        return arrays.asnumpy(result)
    if hasattr(result, "to_dict"):
        parts = {name: _on_host(array) for name, array in result.to_dict().items()}
        return namedtuple(type(result).__name__, parts)(**parts)
    return tuple(_on_host(part) for part in result) if isinstance(result, tuple) else result


@contextmanager
def traffic() -> Iterator[list[dict[str, Any]]]:
    """Collect what each launch inside moved: a list that is filled at the end."""
    found: list[dict[str, Any]] = []
    library.memory().device_clear()
    yield found
    count = library.memory().device_launches()
    found += [json.loads(library.memory().device_launch(index)) for index in range(count)]


class HostGuide:
    """A Guide of arrays on the host, its work done on the device; a strategy can be forced."""

    def __init__(
        self,
        pred: Any,
        target: Any = None,
        mask: Any = None,
        *,
        binarize: float | None = None,
        strategy: str = "automatic",
        cluster: int = 0,
        units: int = 0,
        cache_bytes: int = 0,
    ) -> None:
        given = [
            None if x is None else arrays.asarray(x, name)
            for x, name in ((pred, "pred"), (target, "target"), (mask, "mask"))
        ]
        self.guide = load().Guide(*given, binarize=binarize)
        index = STRATEGIES.index(strategy)
        self.guide._core.core.set_tuning(index, cluster, units, cache_bytes)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.guide, name)
        if not callable(method):
            return method
        return lambda *features, **options: _on_host(
            method(*(arrays.asarray(x, "features") for x in features), **options)
        )
