"""Draw docs/images/demo.png: ``python docs/images/make_demo_png.py``. Runs the demo in full."""

from __future__ import annotations

import base64
import io
import re
import tempfile
from pathlib import Path

import matplotlib.image
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from PIL import Image

from protoseg_fast.demo import DemoConfig
from protoseg_fast.demo.data import TARGETS, Z_ORIGIN
from protoseg_fast.demo.gallery import Gallery
from protoseg_fast.demo.result import DemoResult
from protoseg_fast.demo.run import run_demo
from protoseg_fast.demo.summary import LayerSummary
from protoseg_fast.web.svg import FALSE_ALARM, HIT

TARGET = "white matter"
SHOWN = ("image", "enc2b", "enc4b", "dec2a", "dec1b")  # layers whose best and worst unit are drawn
INK, MUTED, RULE, BLUE, ORANGE = "#1b1d22", "#626873", "#dcdfe5", "#0072b2", "#d55e00"


def main() -> None:
    """Run the demo and write the picture beside this file."""
    with tempfile.TemporaryDirectory() as folder:
        result = run_demo(DemoConfig(out=Path(folder)))
    buffer = io.BytesIO()
    draw(result).savefig(buffer, format="png", dpi=160, facecolor="white")
    # 256 colours are enough and keep the file small.
    Image.open(buffer).convert("RGB").quantize(256).save(
        Path(__file__).with_name("demo.png"), optimize=True
    )


def draw(result: DemoResult) -> Figure:
    """The layer profile of one target, and the maps of some layers' best and worst unit."""
    layers = result.summary.layers[TARGET]
    gallery = result.gallery
    figure = Figure(figsize=(11, 4.4))
    _title(figure, 0.03, f"SA score of every layer, {TARGET}")
    draw_profile(figure.add_axes((0.075, 0.115, 0.315, 0.765)), layers, result)
    z = gallery.number + Z_ORIGIN
    _title(figure, 0.435, f"What single units mark as {TARGET} (z = {z} mm)")
    wide, high = 0.105, 0.325
    for column, name in enumerate(SHOWN):
        for row, picture in enumerate(gallery.units[TARGET][name]):
            axes = figure.add_axes((0.435 + 0.1125 * column, 0.51 - 0.44 * row, wide, high))
            draw_unit(axes, gallery, picture.overlay)
            axes.set_title(
                f"{name}, {picture.title}: {picture.sa:.2f}", fontsize=8, color=INK, pad=4
            )
    # The image has one unit, so that the place below it is free for the key.
    key = figure.add_axes((0.435, 0.07, wide, high))
    for y, colour, text in (
        (0.9, HIT, "unit and truth\nagree"),
        (0.68, FALSE_ALARM, "false alarm"),
    ):
        key.scatter([0.07], [y], marker="s", s=50, color=[channel / 255 for channel in colour[:3]])
        key.text(0.19, y, text, fontsize=8, va="center", color=MUTED)
    key.text(0.02, 0.4, "white line: outline\nof the truth", fontsize=8, va="center", color=MUTED)
    key.text(0.02, 0.12, "number: SA score\non this slice", fontsize=8, va="center", color=MUTED)
    key.set(xlim=(0, 1), ylim=(0, 1))
    key.axis("off")
    return figure


def _title(figure: Figure, left: float, text: str) -> None:
    figure.text(left, 0.945, text, fontsize=11, fontweight="bold", color=INK, va="center")


def draw_profile(axes: Axes, layers: list[LayerSummary], result: DemoResult) -> None:
    """SA of every layer with and without ground truth, and of its best unit."""
    y = np.arange(len(layers))
    low, high = np.array([layer.spread for layer in layers]).T
    axes.hlines(y, low, high, color=BLUE, linewidth=5, alpha=0.22)
    axes.axvline(
        result.summary.baseline[TARGET],
        color=INK,
        linewidth=1,
        linestyle=(0, (4, 2)),
        label="whole brain as one map",
    )
    best = [layer.unit_sa[layer.best] for layer in layers]
    axes.plot(best, y, "|", color=INK, markersize=9, label="best single unit")
    truth = [layer.truth for layer in layers]
    axes.plot(truth, y, "o-", color=BLUE, markersize=5, linewidth=1.2, label="against the truth")
    output = [layer.output for layer in layers]
    axes.plot(
        output, y, "D", color=ORANGE, markersize=4.5, mfc="white", label="without ground truth"
    )
    axes.set(
        xlim=(0, 1), ylim=(len(layers) - 0.5, -0.5), xlabel="SA score (mean of held-out slices)"
    )
    axes.set_yticks(y, [layer.layer.name for layer in layers])
    axes.tick_params(axis="y", length=0)
    axes.tick_params(labelsize=9, labelcolor=INK, color=RULE)
    axes.grid(True, axis="x", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(RULE)
    axes.legend(
        loc="lower left", fontsize=7.5, frameon=False, bbox_to_anchor=(-0.02, 0), handlelength=1.6
    )


def draw_unit(axes: Axes, gallery: Gallery, overlay: str) -> None:
    """The scan with a unit's hits and false alarms and the outline of the truth."""
    for uri in (gallery.scan, overlay):
        axes.imshow(_pixels(uri), cmap="gray", interpolation="nearest")
    runs = re.findall(r"M(\d+) (\d+)([hv])(\d+)", gallery.outlines[TARGETS.index(TARGET)])
    # Voxel (0, 0) is centred on (0, 0) here, and has its corner there in the outline.
    starts = np.array([(int(x), int(y)) for x, y, _, _ in runs]) - 0.5
    steps = np.array([(int(n), 0) if way == "h" else (0, int(n)) for _, _, way, n in runs])
    lines = np.stack([starts, starts + steps], axis=1)
    axes.add_collection(LineCollection(list(lines), colors="white", linewidths=0.45))
    axes.axis("off")


def _pixels(uri: str) -> np.ndarray:
    return matplotlib.image.imread(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


if __name__ == "__main__":
    main()
