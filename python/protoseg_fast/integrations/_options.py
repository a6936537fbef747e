"""Options of a metric, refused when it is made by what would refuse them when it is used."""

from __future__ import annotations

from typing import Any

import numpy as np

from protoseg_fast.functional import sa_counts
from protoseg_fast.guide import Empty, Groups, Interpolation, Metric, is_whole

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
    options: dict[str, Any] = {
        "metric": metric,
        "interpolation": interpolation,
        "align_corners": align_corners,
    }
    voxel = np.zeros((1, 1, 1))
    # How many channels numbers must divide is not known yet.
    counts = sa_counts(voxel, voxel, voxel, groups=1 if is_whole(groups) else groups, **options)
    counts.score(empty=empty)
    return options
