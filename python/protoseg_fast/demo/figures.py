"""The three charts of the page. Each draws one target, so that panels stack on a phone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from protoseg_fast.demo.summary import GOOD_SA, Correlation, LayerSummary
from protoseg_fast.web.svg import INK, MUTED, PAPER, RULE, SERIES, STYLE, inline_svg

WIDTH = 4.6  # inches; shown about as wide on a phone, so that 10 pt stays readable
ROW = 0.29  # inches per layer
BINS = np.linspace(0, 1, 21)

# The line that says what calling the whole brain the target would score.
BASELINE: Any = {"color": INK, "linewidth": 1, "linestyle": (0, (4, 2))}


@dataclass(frozen=True)
class Kind:
    """How a kind of degradation is called in legends and in sentences, and its marker."""

    label: str
    place: str
    marker: str


KINDS = {
    "clean": Kind("as it is", "on clean images", "o"),
    "noise": Kind("noise", "under noise", "s"),
    "bias": Kind("shading", "under shading", "^"),
    "blur": Kind("blur", "under blur", "D"),
}


def layer_profile(layers: Sequence[LayerSummary], baseline: float, name: str) -> Markup:
    """SA of every layer, with and without ground truth, and of its best unit."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _rows(layers, header=0.75)
        y = np.arange(len(layers))
        low, high = np.array([layer.spread for layer in layers]).T
        axes.axvline(baseline, **BASELINE)
        axes.hlines(y, low, high, color=SERIES[0], linewidth=5, alpha=0.28)
        best = [layer.unit_sa[layer.best] for layer in layers]
        axes.plot(best, y, "|", color=INK, markersize=9, label="best single unit")
        axes.plot(
            [layer.truth for layer in layers],
            y,
            "o-",
            color=SERIES[0],
            markersize=5,
            linewidth=1.2,
            label="layer, against the truth",
        )
        axes.plot(
            [layer.output for layer in layers],
            y,
            "D",
            color=SERIES[1],
            markersize=4.5,
            markerfacecolor=PAPER,
            label="layer, without the truth",
        )
        axes.plot([], [], label="whole brain as one map", **BASELINE)
        _legend(figure, axes)
        return inline_svg(figure, name, _profile_text(layers))


def unit_histograms(layers: Sequence[LayerSummary], baseline: float, name: str) -> Markup:
    """How the units of each layer spread over SA; one row of bars per layer."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _rows(layers, header=0.15)
        axes.axvline(GOOD_SA, color=MUTED, linewidth=1, linestyle=(0, (1, 2)))
        axes.axvline(baseline, **BASELINE)
        for row, layer in enumerate(layers):
            counts, _ = np.histogram(layer.unit_sa, BINS)
            heights = 0.85 * counts / max(counts.max(), 1)
            # The y axis points down: bars rise from the bottom edge of their row.
            axes.bar(
                BINS[:-1],
                -heights,
                np.diff(BINS),
                bottom=row + 0.45,
                align="edge",
                color=SERIES[0],
                edgecolor=PAPER,
                linewidth=0.6,
            )
            axes.axhline(row + 0.45, color=RULE, linewidth=0.6)
        return inline_svg(figure, name, _histogram_text(layers))


def quality_scatter(
    quality: pd.DataFrame, target: str, correlation: Correlation, name: str
) -> Markup:
    """Dice against mean SA, one mark per slice and degradation."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.3))
        axes = figure.add_axes((0.13, 0.12, 0.84, 0.76))
        for (name_of_kind, kind), colour in zip(KINDS.items(), SERIES, strict=True):
            rows = quality[quality.kind == name_of_kind]
            levels = sorted(rows.severity.unique())
            for strength, level in enumerate(levels, start=1):
                some = rows[rows.severity == level]
                # Stronger degradation, larger mark.
                axes.plot(
                    some.mean_sa,
                    some.dice,
                    kind.marker,
                    color=colour,
                    alpha=0.75,
                    markersize=3 + 1.3 * strength,
                    markeredgewidth=0.4,
                    markeredgecolor=PAPER,
                )
            axes.plot([], [], kind.marker, color=colour, markersize=6, label=kind.label)
        axes.set_xlabel("mean SA over the layers (no ground truth used)")
        axes.set_ylabel("Dice against the ground truth")
        axes.grid(True)
        _legend(figure, axes, columns=4)
        return inline_svg(
            figure,
            name,
            f"Scatter plot of Dice against mean SA for {target}, {correlation.points} images. "
            f"Pearson correlation {correlation.pearson:.2f}, rank correlation "
            f"{correlation.spearman:.2f}.",
        )


def _rows(layers: Sequence[LayerSummary], header: float) -> tuple[Figure, Axes]:
    """A figure with one row per layer, first layer on top, SA from 0 to 1 along x."""
    footer = 0.55
    height = header + ROW * len(layers) + footer
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((0.155, footer / height, 0.825, (height - header - footer) / height))
    axes.set_xlim(0, 1)
    axes.set_ylim(len(layers) - 0.5, -0.5)
    axes.set_yticks(range(len(layers)), [layer.layer.name for layer in layers])
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("SA score")
    axes.grid(True, axis="x")
    axes.spines["left"].set_visible(False)
    return figure, axes


def _legend(figure: Figure, axes: Axes, columns: int = 2) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="upper left",
        ncols=columns,
        fontsize=9.5,
        bbox_to_anchor=(0.01, 1.0),
        columnspacing=1.4,
        handlelength=1.6,
    )


def _profile_text(layers: Sequence[LayerSummary]) -> str:
    values = ", ".join(
        f"{layer.layer.name} {layer.truth:.2f} ({layer.output:.2f})" for layer in layers
    )
    return (
        f"SA score of each layer for {layers[0].target} against the ground truth, and in "
        f"brackets without it: {values}."
    )


def _histogram_text(layers: Sequence[LayerSummary]) -> str:
    values = ", ".join(f"{layer.layer.name} {layer.good_share:.0%}" for layer in layers)
    return (
        f"Histograms of the units' SA scores for {layers[0].target}. Share of units that reach "
        f"{GOOD_SA}: {values}."
    )
