"""The figures of the report, one target each, so that they stack on a phone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from protoseg_fast.network.records import TARGET
from protoseg_fast.report.analysis import ACTIVE, LayerResult, TargetResult
from protoseg_fast.report.statistics import risk_coverage
from protoseg_fast.web.svg import Palette

__all__ = ["FIGURES", "Drawing"]

WIDTH = 5.2  # inches; shown about as wide on a phone, so that 10 pt stays readable
ROW = 0.21  # inches per layer
BINS = np.linspace(0, 1, 21)
# Dash patterns and markers tell series apart where colours do not.
DASHED, DOTTED = (0, (5, 2)), (0, (1, 2))


@dataclass(frozen=True)
class Drawing:
    """A figure: its name, how to draw it, when it says anything, and what it shows in words."""

    name: str
    draw: Callable[[TargetResult, Palette], Figure]
    applies: Callable[[TargetResult], bool]
    describe: Callable[[TargetResult], str]

    def __call__(self, result: TargetResult, palette: Palette) -> Figure:
        """Draw it for a target; save it under the same style."""
        with matplotlib.rc_context(palette.style()):
            return self.draw(result, palette)


def _profile(result: TargetResult, palette: Palette) -> Figure:
    layers = result.layers
    figure, axes = _rows(layers, header=0.62)
    y = np.arange(len(layers))
    low, high = np.array([layer.spread for layer in layers]).reshape(-1, 2).T
    first, second = palette.series[:2]
    truth = result.reference == TARGET
    axes.hlines(y, low, high, color=first if truth else second, linewidth=5, alpha=0.28)
    if truth:
        _series(axes, [x.truth for x in layers], "o-", first, "layer, against the truth")
    output = [layer.output for layer in layers]
    style = "D" if truth else "D-"
    _series(axes, output, style, second, "layer, against the output", markerfacecolor=palette.paper)
    best = [layer.best_sa for layer in layers]
    _series(axes, best, "|", palette.ink, "best single unit", markersize=8)
    _legend(figure, axes)
    return figure


def _series(
    axes: Axes, x: Sequence[float], style: str, color: str, label: str, **options: Any
) -> None:
    options = {"markersize": 4, "linewidth": 1.1, "clip_on": False} | options
    axes.plot(x, np.arange(len(x)), style, color=color, label=label, **options)


def _histograms(result: TargetResult, palette: Palette) -> Figure:
    layers = result.layers
    figure, axes = _rows(layers, header=0.3, right=0.11)
    axes.axvline(ACTIVE, color=palette.muted, linewidth=1, linestyle=DOTTED)
    for row, layer in enumerate(layers):
        known = layer.unit_sa[np.isfinite(layer.unit_sa)]
        counts, _ = np.histogram(known, BINS)
        bottom = row + 0.45
        # The y axis points down: bars rise from the bottom edge of their row.
        heights = bottom - 0.85 * counts / max(counts.max(), 1)
        axes.stairs(heights, BINS, baseline=bottom, fill=True, color=palette.series[0])
        share = f"{layer.active:.0%}" if np.isfinite(layer.active) else "–"
        axes.text(1.02, row, share, va="center", fontsize=8, color=palette.ink)
    axes.hlines(np.arange(len(layers)) + 0.45, 0, 1, color=palette.rule, linewidth=0.5)
    axes.text(1.02, -0.75, "active", va="bottom", fontsize=8, color=palette.muted)
    return figure


def _agreement(result: TargetResult, palette: Palette) -> Figure:
    figure = Figure(figsize=(WIDTH, 4.4))
    axes = figure.add_axes((0.12, 0.11, 0.85, 0.8))
    axes.plot([0, 1], [0, 1], color=palette.muted, linewidth=1, linestyle=DASHED, label="equal")
    axes.plot(
        *([x.truth for x in result.layers], [x.output for x in result.layers]),
        "o",
        color=palette.series[0],
        markersize=5,
        alpha=0.75,
        label="a layer, mean over cases",
        clip_on=False,
    )
    axes.set(
        xlim=(0, 1), ylim=(0, 1), xlabel="SA against the truth", ylabel="SA against the output"
    )
    axes.grid(True)
    _legend(figure, axes)
    return figure


def _quality(result: TargetResult, palette: Palette) -> Figure:
    figure = Figure(figsize=(WIDTH, 4.6))
    axes = figure.add_axes((0.12, 0.11, 0.85, 0.8))
    axes.plot([0, 1], [0, 1], color=palette.muted, linewidth=1, linestyle=DASHED, label="equal")
    for (name, words, marker), color in zip(_ESTIMATES, palette.series, strict=False):
        axes.plot(
            *(result.quality[name], result.quality["dice"]),
            marker,
            color=color,
            alpha=0.75,
            markersize=5,
            markeredgewidth=0.5,
            markeredgecolor=palette.paper,
            label=words,
        )
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="estimate without ground truth")
    axes.set_ylabel("Dice against the truth")
    axes.grid(True)
    _legend(figure, axes, columns=3)
    return figure


_ESTIMATES = (("mean_sa", "mean SA", "o"), ("confidence", "Soft Dice Confidence", "^"))


def _risk_coverage(result: TargetResult, palette: Palette) -> Figure:
    figure = Figure(figsize=(WIDTH, 4.0))
    axes = figure.add_axes((0.14, 0.12, 0.83, 0.72))
    columns = ["dice", "mean_sa", "confidence"]
    known = result.quality[columns].dropna(subset=["dice"])
    risk = 1 - known["dice"].to_numpy(float)
    styles = ("-", (0, (6, 1.5)))
    for (name, words, _), color, dash in zip(_ESTIMATES, palette.series, styles, strict=False):
        some = known[name].notna().to_numpy()
        curve = risk_coverage(known[name].to_numpy(float)[some], risk[some])
        axes.plot(_coverage(curve), curve, color=color, linestyle=dash, linewidth=1.6, label=words)
    perfect = risk_coverage(-risk, risk)
    line: Any = {"color": palette.muted, "linewidth": 1}
    axes.plot(_coverage(perfect), perfect, linestyle=DOTTED, label="perfect ranking", **line)
    axes.axhline(risk.mean(), linestyle=DASHED, label="no ranking", **line)
    axes.set(xlim=(0, 1), xlabel="share of cases accepted, most trusted first")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("their mean 1 − Dice")
    axes.grid(True)
    _legend(figure, axes)
    return figure


def _coverage(curve: np.ndarray) -> np.ndarray:
    return np.arange(1, len(curve) + 1) / max(len(curve), 1)


def _rows(layers: Sequence[LayerResult], header: float, right: float = 0.02) -> tuple[Figure, Axes]:
    """A figure with one row per layer, first layer on top, SA from 0 to 1 along x."""
    footer = 0.5
    height = header + ROW * max(len(layers), 2) + footer
    labels = [_short(layer.label) for layer in layers]
    left = min(0.02 + 0.0145 * max(map(len, labels), default=0), 0.42)
    figure = Figure(figsize=(WIDTH, height))
    box = (left, footer / height, 1 - left - right, (height - header - footer) / height)
    axes = figure.add_axes(box)
    axes.set_xlim(0, 1)
    axes.set_ylim(max(len(layers), 2) - 0.5, -0.5)
    axes.set_yticks(range(len(layers)), labels, fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("SA score")
    axes.grid(True, axis="x")
    axes.spines["left"].set_visible(False)
    return figure, axes


def _short(label: str) -> str:
    """Long names keep their end, which tells them apart. A dollar is no formula's begin."""
    short = label if len(label) <= 28 else "…" + label[-27:]
    return short.replace("$", r"\$")


def _legend(figure: Figure, axes: Axes, columns: int = 2) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="upper left",
        ncols=columns,
        fontsize=9,
        bbox_to_anchor=(0.0, 1.0),
        columnspacing=1.4,
        handlelength=1.8,
    )


# --- what each shows, for those who cannot see it -------------------------------------------------


def _profile_text(result: TargetResult) -> str:
    values = ", ".join(f"{layer.label} {_number(layer.score)}" for layer in result.layers)
    return f"SA score of each layer for {result.name}, mean over the cases: {values}."


def _histogram_text(result: TargetResult) -> str:
    values = ", ".join(f"{layer.label} {_percent(layer.active)}" for layer in result.layers)
    return (
        f"Histograms of the units' mean SA scores for {result.name}. Share of units above "
        f"{ACTIVE}: {values}."
    )


def _agreement_text(result: TargetResult) -> str:
    found = result.layer_agreement
    return (
        f"Scatter plot of the layers' SA against the output over SA against the truth for "
        f"{result.name}. Over {found.pairs} pairs of case and layer the mean difference is "
        f"{_number(found.mae)}."
    )


def _quality_text(result: TargetResult) -> str:
    mean_sa, confidence = result.mean_sa.agreement, result.confidence.agreement
    return (
        f"Scatter plot of Dice over two estimates for {result.name}, {mean_sa.pairs} cases. Rank "
        f"correlation with Dice: mean SA {_number(mean_sa.spearman)}, Soft Dice Confidence "
        f"{_number(confidence.spearman)}."
    )


def _risk_text(result: TargetResult) -> str:
    return (
        f"Risk-coverage curves for {result.name}. Area under the curve, lower is better: mean SA "
        f"{_number(result.mean_sa.aurc)}, Soft Dice Confidence {_number(result.confidence.aurc)}, "
        f"perfect ranking {_number(result.mean_sa.best_aurc)}."
    )


def _number(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "unknown"


def _percent(value: float) -> str:
    return f"{value:.0%}" if np.isfinite(value) else "unknown"


def _always(result: TargetResult) -> bool:
    return bool(result.layers)


def _has_units(result: TargetResult) -> bool:
    return any(len(layer.unit_sa) for layer in result.layers)


def _has_both(result: TargetResult) -> bool:
    return result.layer_agreement.pairs > 0


def _has_dice(result: TargetResult) -> bool:
    return result.has_dice


#: All figures, in the order of the page.
FIGURES = (
    Drawing("layer-profile", _profile, _always, _profile_text),
    Drawing("unit-histograms", _histograms, _has_units, _histogram_text),
    Drawing("agreement", _agreement, _has_both, _agreement_text),
    Drawing("quality", _quality, _has_dice, _quality_text),
    Drawing("risk-coverage", _risk_coverage, _has_dice, _risk_text),
)
