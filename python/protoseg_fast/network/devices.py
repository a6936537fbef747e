"""Where scores are computed: where the features are, if the engine runs there."""

from __future__ import annotations

import torch
from torch import Tensor

from protoseg_fast import _core
from protoseg_fast.guide import Guide

__all__ = ["beside", "move", "scoring_device", "why_on_the_cpu"]


def scoring_device(tensor: Tensor) -> torch.device:
    """Return the tensor's own device if scores can be computed there, else the CPU."""
    return tensor.device if tensor.is_cuda and _core.cuda_available() else torch.device("cpu")


def why_on_the_cpu(device: str) -> str | None:
    """Say why scores of a network on that device are computed on the CPU, unless it is the CPU or
    they are computed there.
    """
    if device.partition(":")[0] == "cpu" or _core.cuda_available():
        return None
    reason = _core.build_config()["cuda"]
    return f"the network runs on {device}, scores are computed on the CPU ({reason})"


def move(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Return the tensor on that device: itself if it is there already."""
    return tensor.to(device)


def beside(guide: Guide, features: Tensor) -> Tensor:
    """Return features on the guide's device."""
    return move(features, guide._kind.device)
