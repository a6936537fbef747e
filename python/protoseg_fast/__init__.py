"""Segmentation ability map, fast: score every layer and unit of a segmentation network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

try:
    from protoseg_fast import _core
except ImportError as error:
    raise ImportError(
        "protoseg_fast could not load its compiled engine (protoseg_fast._core). If you are in a "
        "source checkout, install it first: pip install ."
    ) from error

from protoseg_fast import reference
from protoseg_fast._core import available_isas, build_config, cuda_available, set_isa
from protoseg_fast.counts import BothCounts, Counts, MeanSA, Prototypes, mean_sa
from protoseg_fast.functional import probability, prototypes, sa_counts, sa_score, segment
from protoseg_fast.guide import Guide

if TYPE_CHECKING:
    from protoseg_fast.nn import ProtoSeg

__all__ = [
    "BothCounts",
    "Counts",
    "Guide",
    "MeanSA",
    "ProtoSeg",
    "Prototypes",
    "available_isas",
    "build_config",
    "cuda_available",
    "mean_sa",
    "probability",
    "prototypes",
    "reference",
    "sa_counts",
    "sa_score",
    "segment",
    "set_isa",
]

__version__: str = _core.__version__


def __getattr__(name: str) -> Any:
    # ProtoSeg needs torch, whose import takes seconds: only those who use it pay.
    if name == "ProtoSeg":
        from protoseg_fast.nn import ProtoSeg

        return ProtoSeg
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), "ProtoSeg"])
