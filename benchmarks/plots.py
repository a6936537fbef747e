"""Plots of a record; benchmarks/README.md says how to read them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from contenders import BATCHED, CONTENDERS, EXPERT, LOOP, OURS, OURS_GUIDED, READ
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from measure import Row
from report import Record
from workloads import CHANNELS, HEADLINE, RESIZE, SIZE, curve_points

matplotlib.use("Agg")
from matplotlib import pyplot as plt

# Okabe and Ito's colours, told apart by everyone; marker and dashes say the same once more.
_BLUE, _SKY, _GREEN, _ORANGE = "#0072B2", "#56B4E9", "#009E73", "#E69F00"
_RED, _PURPLE, _GREY = "#D55E00", "#CC79A7", "#666666"
STYLES: dict[str, tuple[str, str, str]] = {
    READ: ("black", "", ":"),
    LOOP: (_RED, "s", "-"),
    BATCHED: (_ORANGE, "D", "-"),
    EXPERT: (_GREEN, "^", "-"),
    "expert maps, MONAI Dice": (_PURPLE, "v", "--"),
    "expert maps, torchmetrics Dice": (_GREY, "P", "--"),
    OURS: (_BLUE, "o", "-"),
    OURS_GUIDED: (_SKY, "o", "--"),
}

OTHER_CURVES = ("images", "targets", "groups", "threads", "dtype", "data", "activations")


def write_plots(record: Record, folder: Path) -> list[Path]:
    """Write every plot that the record has figures for; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "channels": _time_curve(record, CHANNELS, "channels C (256 x 256, same size)"),
        "size": _time_curve(record, SIZE, "side n (32 channels of n x n, same size)"),
        "resize": _time_curve(
            record, RESIZE, "resize factor (64 channels of (256 / factor)² -> 256²)"
        ),
        "memory": _memory(record),
        "roofline": _roofline(record),
        "other": _others(record),
    }
    paths = []
    for name, figure in figures.items():
        if figure is None:
            continue
        paths.append(folder / f"{name}.png")
        figure.savefig(paths[-1], dpi=130)
        plt.close(figure)
    return paths


def _rows(record: Record, curve: str) -> list[Row]:
    return [row for row in record.result.rows if row.curve == curve]


def _time_curve(record: Record, curve: str, label: str) -> Figure | None:
    rows = _rows(record, curve)
    if not rows:
        return None
    figure, axes = plt.subplots(figsize=(8.5, 5.2), layout="constrained")
    _lines(axes, rows, lambda row: row.median_s * 1e3)
    axes.set(xscale="log", yscale="log", xlabel=label, ylabel="time of a unit sweep (ms, median)")
    _number_ticks(axes, rows)
    title = "Unit sweep: time by " + curve
    if curve == RESIZE:
        title += "\nthe dotted line reads features, pred and target once"
    axes.set_title(title, loc="left")
    _legend(figure, axes)
    return figure


def _lines(axes: Axes, rows: Sequence[Row], value: Callable[[Row], float | None]) -> None:
    """One line per contender; a category (dtype, kind of data) is a position."""
    positions = _positions(rows)
    for name in [contender.name for contender in CONTENDERS]:
        points = [(positions[row.x], value(row)) for row in rows if row.contender == name]
        points = [(x, y) for x, y in points if y is not None]
        if name not in STYLES or not points:
            continue
        color, marker, dashes = STYLES[name]
        label = "read limit (torch.sum)" if name == READ else name
        order = 5 if name in (OURS, OURS_GUIDED) else 3
        axes.plot(
            *zip(*points, strict=True),
            dashes,
            color=color,
            marker=marker,
            ms=6,
            lw=2.4 if name == OURS else 1.6,
            label=label,
            zorder=order,
        )
    axes.grid(which="major", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _positions(rows: Sequence[Row]) -> dict[float | str, float]:
    values = list(dict.fromkeys(row.x for row in rows))
    if any(isinstance(value, str) for value in values):
        return {value: float(i) for i, value in enumerate(values)}
    return {value: float(value) for value in values}


def _number_ticks(axes: Axes, rows: Sequence[Row]) -> None:
    positions = _positions(rows)
    axes.set_xticks(
        list(positions.values()), [f"{x:g}" if not isinstance(x, str) else x for x in positions]
    )
    axes.minorticks_off()


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=9)


def _memory(record: Record) -> Figure | None:
    curves = [
        (curve, [row for row in _rows(record, curve) if row.peak_bytes is not None])
        for curve in (CHANNELS, SIZE)
    ]
    if not all(rows for _, rows in curves):
        return None
    figure, both = plt.subplots(1, 2, figsize=(12, 5), layout="constrained", sharey=True)
    least = 1e-2  # MB; a page or none at all would be minus infinity
    for axes, (curve, rows) in zip(both, curves, strict=True):
        _lines(
            axes,
            [row for row in rows if row.contender != READ],
            lambda row: max(least, row.peak_bytes / 1e6),
        )
        points = [(point.x, point.feature_bytes / 1e6) for point in curve_points(curve)]
        shown = {row.x for row in rows}
        points = [point for point in points if point[0] in shown]
        if points:
            axes.plot(*zip(*points, strict=True), ":", color="black", label="the features")
        axes.set(xscale="log", yscale="log", xlabel=curve)
        _number_ticks(axes, rows)
    both[0].set_ylabel(f"peak extra memory (MB; {least:g}: that or less)")
    figure.suptitle("Unit sweep: memory held beyond features, pred and target", x=0.01, ha="left")
    _legend(figure, both[0])
    return figure


def _roofline(record: Record) -> Figure | None:
    """Operations per second against operations per byte that must be read."""
    bandwidth, compute = (record.roofs.get(name) for name in ("read_bytes_s", "operations_s"))
    points = [(w, row) for w in HEADLINE for row in record.result.rows if row.workload == w.name]
    if not points or not bandwidth or not compute:
        return None
    figure, axes = plt.subplots(figsize=(9.5, 5.6), layout="constrained")
    intensity = np.geomspace(0.5, 2000, 200)
    roof = np.minimum(bandwidth * intensity, compute) / 1e9
    label = (
        f"roof: plain read, {bandwidth / 1e9:.3g} GB/s;\nmatrix product, {compute / 1e9:.3g} Gop/s"
    )
    axes.plot(intensity, roof, color="black", lw=1.5, label=label)
    for name in (LOOP, BATCHED, EXPERT, OURS, OURS_GUIDED):
        mine = [(w, row) for w, row in points if row.contender == name]
        xs = [w.operations / w.limit_bytes for w, _ in mine]
        ys = [w.operations / row.median_s / 1e9 for w, row in mine]
        color, marker, _ = STYLES[name]
        axes.plot(
            xs,
            ys,
            marker,
            color=color,
            ms=8,
            label=name,
            mfc="none" if name == OURS_GUIDED else color,
        )
    for i, workload in enumerate({w.name: w for w, _ in points}.values()):
        x, letter = workload.operations / workload.limit_bytes, "ABCDEFGH"[i % 8]
        axes.axvline(x, color="black", alpha=0.12, lw=1, zorder=0)
        # neighbours may be a hair apart: every other letter sits higher
        place = {"ha": "center", "va": "bottom", "transform": axes.get_xaxis_transform()}
        axes.text(x, 1.0 + 0.035 * (i % 3), letter, **place)
        axes.plot([], [], ls="", color="black", marker=f"${letter}$", label=workload.name)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="nominal operations per byte that must be read",
        ylabel="nominal Gop/s (higher is better)",
    )
    axes.set_title("Roofline of the headline problems", loc="left", pad=32)
    axes.spines[["top", "right"]].set_visible(False)
    _legend(figure, axes)
    return figure


def _others(record: Record) -> Figure | None:
    shown = [curve for curve in OTHER_CURVES if _rows(record, curve)]
    if not shown:
        return None
    columns = min(4, len(shown))
    lines = -(-len(shown) // columns)
    figure, grid = plt.subplots(
        lines,
        columns,
        figsize=(4 * columns + 2.5, 3.6 * lines),
        layout="constrained",
        squeeze=False,
    )
    for axes in grid.flat[len(shown) :]:
        axes.set_axis_off()
    for axes, curve in zip(grid.flat, shown, strict=False):
        rows = _rows(record, curve)
        _lines(axes, rows, lambda row: row.median_s * 1e3)
        axes.set(yscale="log", title=curve)
        if not isinstance(rows[0].x, str):
            axes.set_xscale("log")
        _number_ticks(axes, rows)
    for axes in grid[:, 0]:
        axes.set_ylabel("time (ms, median)")
    _legend(figure, grid[0, 0])
    return figure
