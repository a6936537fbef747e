"""Drawing for the page: matplotlib figures as inline SVG, maps as small PNG data URIs.

Inline SVG takes its colours and font from the page, so that a figure follows light and dark mode,
stays sharp in print and has text that can be selected and read aloud.
"""

from __future__ import annotations

import base64
import io
import re
from typing import Any

import matplotlib
import matplotlib.image
import numpy as np
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from numpy.typing import NDArray

# Colours drawn by matplotlib on the left become the page's variables on the right; see the :root
# rules of page.html.j2, which hold the actual colours of light and dark mode.
INK, MUTED, RULE, PAPER = "#101010", "#707070", "#d0d0d0", "#fefefe"
SERIES = ("#000001", "#000002", "#000003", "#000004")
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    RULE: "var(--rule)",
    PAPER: "var(--paper)",
    **{colour: f"var(--series-{i})" for i, colour in enumerate(SERIES, start=1)},
}

#: The look every figure is drawn and saved with: ``with matplotlib.rc_context(STYLE)``.
STYLE: Any = {  # Any: matplotlib's stubs spell out every key
    "svg.fonttype": "none",
    "svg.hashsalt": "protoseg_fast",
    "font.size": 10,
    "axes.edgecolor": RULE,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
}


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
    """A data URI of an image: (H, W) grey, or (H, W, 4) RGBA."""
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    buffer = io.BytesIO()
    matplotlib.image.imsave(buffer, pixels, format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


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
