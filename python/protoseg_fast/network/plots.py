"""Figures and tables of a `SegmentationAbilityMap`. Needs matplotlib, or rich."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.table import Table

__all__ = ["plot", "rich_table"]

_BINS = np.linspace(0, 1, 21)


def plot(layers: pd.DataFrame, units: pd.DataFrame, target: str) -> tuple[Figure, Sequence[Axes]]:
    """Draw the layers' profile, each layer's histogram of units, and the heat map of units.

    Args:
        layers, units: columns layer, call, group, sa: the means over cases for one target.
        target: its name.
    """
    import matplotlib.pyplot as plt

    keys = ["layer", "call"]
    present = layers if len(layers) else units
    order = list(dict.fromkeys(present[keys].itertuples(index=False, name=None)))
    labels = [name if call == 0 else f"{name} ({call})" for name, call in order]
    scores = [
        np.sort(units.loc[(units["layer"] == n) & (units["call"] == c), "sa"].to_numpy())[::-1]
        for n, c in order
    ]
    height = max(3.0, 1.5 + 0.22 * len(order))
    figure, axes = plt.subplots(1, 3, figsize=(13, height), sharey=True, layout="constrained")
    rows = np.arange(len(order))
    if len(layers):
        axes[0].plot(layers["sa"], rows, "o-", label="layer", zorder=3)
    best = [np.nanmax(s, initial=np.nan) if not np.isnan(s).all() else np.nan for s in scores]
    axes[0].plot(best, rows, ".", color="0.5", label="best unit")
    axes[0].set(xlim=(0, 1), xlabel="SA score", title=f"Layers: {target}")
    axes[0].set_yticks(rows, labels)
    axes[0].legend(frameon=False)
    axes[0].grid(alpha=0.3)
    counts = np.array([np.histogram(s[~np.isnan(s)], _BINS)[0] for s in scores], dtype=float)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    edges = np.arange(len(order) + 1) - 0.5
    histogram = axes[1].pcolormesh(_BINS, edges, share, cmap="Greys")
    axes[1].set(xlabel="SA score", title="Units: share of the layer")
    figure.colorbar(histogram, ax=axes[1])
    widest = max((len(s) for s in scores), default=0)
    heat = np.full((len(order), max(widest, 1)), np.nan)
    for row, values in zip(heat, scores, strict=True):
        row[: len(values)] = values
    image = axes[2].pcolormesh(np.arange(heat.shape[1] + 1), edges, heat, vmin=0, vmax=1)
    axes[2].set(xlabel="unit, best first", title="Units: SA score")
    figure.colorbar(image, ax=axes[2])
    axes[0].invert_yaxis()  # shared: the first layer on top
    return figure, axes


def rich_table(summary: pd.DataFrame, reference: str) -> Table:
    """Return the summary of a table as a table for the terminal."""
    from rich.table import Table

    table = Table(title=f"Segmentation ability, against the {reference}")
    for name in summary.columns:
        table.add_column(name.replace("_", " "), justify="left" if name == "layer" else "right")
    for row in summary.itertuples(index=False, name=None):
        table.add_row(*(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row))
    return table
