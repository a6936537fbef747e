"""Templates of pages: one HTML file each, with everything inside it."""

from __future__ import annotations

import math
from pathlib import Path

import jinja2

__all__ = ["UNDEFINED", "duration", "environment", "signed", "two_digits"]

UNDEFINED, MINUS = "\u2013", "\u2212"  # en dash, minus sign


def environment(folder: Path) -> jinja2.Environment:
    """Return jinja2 for the templates of a folder, which can include ``base.css`` of this one.

    Filters: ``sa``, two digits; ``signed``, two digits and a sign; ``duration`` of seconds. Numbers
    that are not finite become a dash.
    """
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"sa": two_digits, "signed": signed, "duration": duration}
    return found


def two_digits(value: float) -> str:
    """Return a score as text."""
    return f"{value:.2f}" if math.isfinite(value) else UNDEFINED


def signed(value: float) -> str:
    """Return a correlation as text."""
    text = f"{value:+.2f}".replace("-", MINUS)
    return text if math.isfinite(value) else UNDEFINED


def duration(seconds: float) -> str:
    """Return seconds in the unit a person would use."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
