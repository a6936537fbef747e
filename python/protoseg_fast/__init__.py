"""Segmentation ability map, fast: score every layer and unit of a segmentation network."""

from __future__ import annotations

from importlib import import_module
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
    from protoseg_fast.cohort import sweep
    from protoseg_fast.few_shot import cosine_logits, masked_average_pool
    from protoseg_fast.losses import SALoss, sa_loss
    from protoseg_fast.network import (
        SegmentationAbilityMap,
        SlidingWindow,
        ablate,
        list_layers,
        segmentation_ability_map,
        swin_reshape_transform,
        trace,
        vit_reshape_transform,
    )
    from protoseg_fast.nn import ProtoSeg
    from protoseg_fast.supervision import DeepSupervision, deep_supervision

# Need torch, whose import takes seconds: only those who use them pay.
_LAZY = {
    "DeepSupervision": "supervision",
    "ProtoSeg": "nn",
    "SALoss": "losses",
    "SegmentationAbilityMap": "network",
    "SlidingWindow": "network",
    "ablate": "network",
    "cosine_logits": "few_shot",
    "deep_supervision": "supervision",
    "list_layers": "network",
    "masked_average_pool": "few_shot",
    "sa_loss": "losses",
    "segmentation_ability_map": "network",
    "sweep": "cohort",
    "swin_reshape_transform": "network",
    "trace": "network",
    "vit_reshape_transform": "network",
}

__all__ = [
    "BothCounts",
    "Counts",
    "DeepSupervision",
    "Guide",
    "MeanSA",
    "ProtoSeg",
    "Prototypes",
    "SALoss",
    "SegmentationAbilityMap",
    "SlidingWindow",
    "ablate",
    "available_isas",
    "build_config",
    "cosine_logits",
    "cuda_available",
    "deep_supervision",
    "list_layers",
    "masked_average_pool",
    "mean_sa",
    "probability",
    "prototypes",
    "reference",
    "sa_counts",
    "sa_loss",
    "sa_score",
    "segment",
    "segmentation_ability_map",
    "set_isa",
    "sweep",
    "swin_reshape_transform",
    "trace",
    "vit_reshape_transform",
]

__version__: str = _core.__version__


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"protoseg_fast.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
