"""The report of a sweep over a cohort: one HTML page that a clinician can read.

``protoseg-fast report DIR`` makes it from the folder that ``protoseg-fast sweep`` wrote. Importing
this package is cheap; what it needs (pandas, pyarrow, matplotlib, jinja2) is imported when a report
is made.
"""

from __future__ import annotations

from pathlib import Path

from protoseg_fast.report.errors import DEPENDENCIES, ReportError

__all__ = ["DEPENDENCIES", "ReportError", "write_report"]


def write_report(
    folder: str | Path, out: str | Path | None = None, *, figures: str | Path | None = None
) -> Path:
    """Write the report of a sweep as one self-contained HTML file.

    Args:
        folder: what the sweep wrote: ``tables/``, ``cases/``, and where they exist ``previews/``,
            ``failures/``, ``config.json`` and ``summary.json``.
        out: the file to write; None: ``report.html`` in the folder.
        figures: a folder for every figure as PNG (200 dpi), SVG and PDF; None: none are written.

    Returns:
        The path of the page.

    Raises:
        ReportError: if the folder holds no sweep, or the page cannot be written.
        ImportError: if pandas, pyarrow, matplotlib or jinja2 is missing.
    """
    from protoseg_fast.report.write import write

    page, pictures = (None if path is None else Path(path) for path in (out, figures))
    return write(Path(folder), page, pictures)
