"""Drawing for pages: matplotlib figures as inline SVG, maps as small PNG data URIs.

Inline SVG takes its colours and font from the page, so that a figure follows light and dark mode,
stays sharp in print and has text that can be selected and read aloud.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True)
class Palette:
    """Colours of figures: text, secondary text, lines, background, and four series."""

    ink: str
    muted: str
    rule: str
    paper: str
    series: tuple[str, str, str, str]

    def style(self) -> Any:  # Any: matplotlib's stubs spell out every key
        """Return the look that a figure is drawn and saved with, for `matplotlib.rc_context`."""
        return {
            "svg.fonttype": "none",
            "svg.hashsalt": "protoseg_fast",
            "font.size": 10,
            "axes.edgecolor": self.rule,
            "axes.labelcolor": self.ink,
            "text.color": self.ink,
            "xtick.color": self.muted,
            "ytick.color": self.muted,
            "xtick.labelcolor": self.muted,
            "ytick.labelcolor": self.ink,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
            "grid.color": self.rule,
            "grid.linewidth": 0.6,
            "legend.frameon": False,
        }


SERIES = ("#000001", "#000002", "#000003", "#000004")
_LIGHT = ("#0072b2", "#d55e00", "#8a5fb0", "#00805c")

#: For figures inside a page: `inline_svg` turns these into the page's variables, whose actual
#: colours in light and dark mode are in the :root rules of base.css.
PAGE = Palette("#101010", "#707070", "#d0d0d0", "#fefefe", SERIES)
#: For files of their own: the colours of the light mode. The series are told apart with every
#: common colour vision; on white they reach the contrast of 3 that graphics need, text reaches 4.5.
PRINT = Palette("#1b1d22", "#626873", "#dcdfe5", "#ffffff", _LIGHT)

INK, MUTED, RULE, PAPER = PAGE.ink, PAGE.muted, PAGE.rule, PAGE.paper
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    RULE: "var(--rule)",
    PAPER: "var(--paper)",
    **{colour: f"var(--series-{i})" for i, colour in enumerate(SERIES, start=1)},
}

#: The look of figures inside a page: ``with matplotlib.rc_context(STYLE)``.
STYLE = PAGE.style()

#: RGBA of overlays on pictures, Okabe and Ito's colours: a map that meets the truth, one that does
#: not, and regions shown for themselves.
HIT, FALSE_ALARM = (0, 158, 115, 205), (230, 159, 0, 215)
REGIONS = ((0, 114, 178, 205), (204, 121, 167, 215))


def inline_svg(figure: Figure, name: str, description: str) -> Markup:
    """The figure as an ``<svg>`` element.

    Args:
        figure: drawn under ``STYLE``.
        name: unique on the page; prefixes the ids, which matplotlib repeats between figures.
        description: what a reader who cannot see the figure is told.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    box = re.search(r'viewBox="([^"]+)"', svg)
    assert box is not None, "matplotlib writes a viewBox"
    opening = (
        f'<svg role="img" aria-label="{escape(description)}" class="chart" viewBox="{box[1]}">'
    )
    svg = opening + svg[svg.index(">") + 1 :]
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(r'(?:xlink:)?href="#', f'href="#{name}-', svg)
    svg = re.sub(r"font: ([^;\"]*?px) [^;\"]+", r"font: \1 var(--sans)", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    return Markup(svg)


def png_uri(pixels: NDArray[np.uint8]) -> str:
    """Return a data URI of an image: uint8, (H, W) grey or (H, W, 4) RGBA."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def overlay_uri(parts: Sequence[tuple[NDArray[np.bool_], tuple[int, int, int, int]]]) -> str:
    """Return a data URI of regions (H, W), each in its colour (RGBA), the rest transparent."""
    pixels = np.zeros((*parts[0][0].shape, 4), np.uint8)
    for region, colour in parts:
        pixels[region] = colour
    return png_uri(pixels)


def outline(region: NDArray[np.bool_]) -> str:
    """SVG path data of the exact voxel outline of a region (H, W); unit = one voxel."""
    height, width = region.shape
    padded = np.pad(region, 1)
    across = padded[1:, 1:-1] != padded[:-1, 1:-1]  # (H + 1, W): edges above each row
    along = padded[1:-1, 1:] != padded[1:-1, :-1]  # (H, W + 1): edges left of each column
    runs = [
        f"M{start} {row}h{length}"
        for row in range(height + 1)
        for start, length in _runs(across[row])
    ]
    runs += [
        f"M{column} {start}v{length}"
        for column in range(width + 1)
        for start, length in _runs(along[:, column])
    ]
    return "".join(runs)


def _runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(start, length) of every run of True."""
    change = np.flatnonzero(np.diff(np.pad(flags, 1).astype(np.int8)))
    return [(int(a), int(b - a)) for a, b in zip(change[::2], change[1::2], strict=True)]
