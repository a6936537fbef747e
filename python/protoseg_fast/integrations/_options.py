"""Options of a metric, refused when it is made by what would refuse them when it is used."""

from __future__ import annotations

from typing import Any

import numpy as np

from protoseg_fast.counts import Counts
from protoseg_fast.guide import Empty, Groups, Interpolation, Metric, _options

__all__ = ["checked"]


def checked(
    groups: Groups,
    metric: Metric,
    interpolation: Interpolation,
    align_corners: bool,
    empty: Empty,
) -> dict[str, Any]:
    """Return metric, interpolation and align_corners by name.

    Raises:
        TypeError, ValueError: as `protoseg_fast.sa_score`.
    """
    one_channel = np.empty((1, 1))  # "unit" asks for their number
    _options(one_channel, groups, metric, interpolation, align_corners)
    none = np.zeros((1, 1, 1), np.int64)
    Counts(none, none, none, none, none > 0).score(empty=empty)
    return {
        "metric": metric,
        "interpolation": interpolation,
        "align_corners": bool(align_corners),
    }
