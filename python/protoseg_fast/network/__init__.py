"""Whole networks: which layers there are, and how well each of them segments. Needs torch."""

from __future__ import annotations

from protoseg_fast.network.ability_map import SegmentationAbilityMap
from protoseg_fast.network.ablation import ablate
from protoseg_fast.network.layers import LayerInfo
from protoseg_fast.network.listing import LayerList, list_layers
from protoseg_fast.network.reshape import swin_reshape_transform, vit_reshape_transform
from protoseg_fast.network.sweep import segmentation_ability_map
from protoseg_fast.network.tracer import Tracer, trace
from protoseg_fast.network.windows import SlidingWindow

__all__ = [
    "LayerInfo",
    "LayerList",
    "SegmentationAbilityMap",
    "SlidingWindow",
    "Tracer",
    "ablate",
    "list_layers",
    "segmentation_ability_map",
    "swin_reshape_transform",
    "trace",
    "vit_reshape_transform",
]
