"""Writes the page, and its figures as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

from protoseg_fast.report.analysis import TargetResult, analyse
from protoseg_fast.report.errors import ReportError
from protoseg_fast.report.figures import FIGURES
from protoseg_fast.report.load import load_cohort
from protoseg_fast.report.page import render_page, slug
from protoseg_fast.report.review import review
from protoseg_fast.web.files import replacing
from protoseg_fast.web.svg import PRINT

__all__ = ["write"]

FORMATS = ("png", "svg", "pdf")


def write(folder: Path, out: Path | None, figures: Path | None) -> Path:
    """Write the page, and the figures if a folder for them is given; see `report.write_report`."""
    out = out or folder / "report.html"
    cohort = load_cohort(folder)
    results = analyse(cohort)
    page = render_page(cohort, results, review(cohort, results))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out) as temporary:
            temporary.write_text(page, encoding="utf-8")
        if figures is not None:
            figures.mkdir(parents=True, exist_ok=True)
            _write_figures(results, figures)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ReportError(
            f"Cannot write to {error.filename or out}: {reason}. Choose another place with --out."
        ) from error
    return out


def _write_figures(results: Sequence[TargetResult], folder: Path) -> None:
    for t, result in enumerate(results):
        for drawing in FIGURES:
            if not drawing.applies(result):
                continue
            figure = drawing(result, PRINT)
            for kind in FORMATS:
                path = folder / f"{drawing.name}-{slug(result.name, t)}.{kind}"
                # Fonts stay text in SVG; without a date the same data gives the same file.
                date = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
                with matplotlib.rc_context(PRINT.style()), replacing(path) as temporary:
                    figure.savefig(temporary, format=kind, dpi=200, metadata=date)
