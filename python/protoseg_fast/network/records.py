"""Counts of the scored layers, and the table made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from protoseg_fast.counts import Counts, Prototypes
from protoseg_fast.guide import Groups, Guide
from protoseg_fast.network.extras import require

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "COLUMNS",
    "OUTPUT",
    "TARGET",
    "WHOLE_LAYER",
    "Record",
    "categorical",
    "fitting",
    "frame_of",
    "score_layer",
]

COLUMNS = (
    "case",
    "layer",
    "call",
    "group",
    "target",
    "reference",
    "sa",
    "tp",
    "predicted",
    "actual",
    "voxels",
    "feature_size",
    "channels",
)

#: The group that stands for all channels of a layer together.
WHOLE_LAYER = "layer"

#: The references.
TARGET, OUTPUT = "target", "output"


@dataclass(frozen=True)
class Record:
    """One call of a layer, scored for one division into groups.

    Attributes:
        layer, call: which.
        whole: whether the one group is the layer as a whole.
        cases: of the N images.
        targets: names of the T targets.
        counts: by reference, (N, G, T).
        feature_size, channels: of the layer.
    """

    layer: str
    call: int
    whole: bool
    cases: Sequence[int | str]
    targets: Sequence[str]
    counts: dict[str, Counts]
    feature_size: tuple[int, ...]
    channels: int

    def columns(self, reference: str, empty: str) -> dict[str, Any]:
        """Return the rows scored against a reference: arrays of N G T, groups numbered from 0 and
        -1 for the whole layer.
        """
        counts = self.counts[reference]._arrays
        n, g, t = counts["tp"].shape
        groups = np.array([-1]) if self.whole else np.arange(g)
        numbers = {name: counts[name] for name in ("tp", "predicted", "actual")}
        numbers["voxels"] = np.broadcast_to(counts["voxels"], (n, g, t))
        sa = self.counts[reference]._score("dice", empty)
        return {
            "case": np.repeat(np.array(self.cases, dtype=object), g * t),
            "group": np.tile(np.repeat(groups, t), n),
            "target": np.tile(np.array(self.targets, dtype=object), n * g),
            "sa": sa.reshape(-1),
            **{name: values.reshape(-1) for name, values in numbers.items()},
        }


def fitting(divisions: Sequence[Groups], channels: int) -> tuple[list[Groups], str | None]:
    """Return those that divide the channels, and, if some do not, why they are left out."""
    fit = [g for g in divisions if not isinstance(g, int) or channels % g == 0]
    unfit = [g for g in divisions if g not in fit]
    if not unfit:
        return fit, None
    return fit, f"has {channels} channels, not a multiple of groups={unfit[0]}"


def score_layer(
    guide: Guide,
    features: Any,
    divisions: Sequence[Groups],
    options: dict[str, Any],
    prototypes: Prototypes | None = None,
) -> list[dict[str, Counts]]:
    """Score features, in each of the divisions into groups, against all the guide's references."""
    found = guide._sa_counts_of(features, divisions, prototypes, **options)
    if not guide.has_target:
        return [{OUTPUT: both.output} for both in found]
    return [{TARGET: both.target, OUTPUT: both.output} for both in found]


def frame_of(records: Sequence[Record], empty: str) -> pd.DataFrame:
    """Return the table of records as a DataFrame with `COLUMNS`."""
    pd = require("pandas", "a segmentation ability map")
    parts: list[dict[str, Any]] = []
    for record in records:
        for reference in record.counts:
            rows = record.columns(reference, empty)
            count = len(rows["sa"])
            parts.append(
                rows
                | {
                    "layer": np.full(count, record.layer, dtype=object),
                    "call": np.full(count, record.call),
                    "reference": np.full(count, reference, dtype=object),
                    "feature_size": np.full(
                        count, "x".join(map(str, record.feature_size)), dtype=object
                    ),
                    "channels": np.full(count, record.channels),
                }
            )
    dtypes = {"sa": np.float64}
    columns: dict[str, Any] = {
        name: np.concatenate([part[name] for part in parts])
        if parts
        else np.empty(0, dtypes.get(name, np.int64))
        for name in COLUMNS
    }
    for name in ("case", "layer", "target", "reference", "feature_size"):
        columns[name] = _in_order(pd, columns[name])
    groups = columns["group"]
    names = [WHOLE_LAYER, *range(int(groups.max(initial=-1)) + 1)]
    columns["group"] = categorical(pd, groups + 1, names)
    return pd.DataFrame(columns)


def categorical(pd: Any, codes: NDArray[Any], names: Sequence[Any]) -> Any:
    """Return categories of Python's own types: int64 if they all are ints."""
    numbers = bool(names) and all(isinstance(name, int) for name in names)
    return pd.Categorical.from_codes(codes, pd.Index(names, dtype="int64" if numbers else object))


def _in_order(pd: Any, values: NDArray[Any]) -> Any:
    """Return values as categories in the order they come."""
    codes, names = pd.factorize(values)
    return categorical(pd, codes, list(names))
