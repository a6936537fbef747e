"""The subcommand ``protoseg-fast report``. Imports nothing heavy."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import Any

from protoseg_fast.report.errors import DEPENDENCIES, ReportError

__all__ = ["register"]


def register(commands: Any) -> None:
    """Add the subcommand to argparse's subparsers; its ``run`` returns the exit status."""
    report = commands.add_parser(
        "report",
        help="write a page about a sweep that a clinician can read",
        description="Write one self-contained HTML page about the results of protoseg-fast sweep: "
        "the cases to look at first, what every layer and unit can segment, and whether mean SA "
        "can be trusted on these cases. It works offline and prints.",
    )
    report.add_argument("folder", metavar="DIR", type=Path, help="folder that the sweep wrote")
    report.add_argument(
        "--out", metavar="FILE", type=Path, help="the page to write (default: DIR/report.html)"
    )
    report.add_argument(
        "--figures",
        action="store_true",
        help="write each figure as PNG, SVG and PDF too, into a folder figures beside the page",
    )
    report.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> int:
    missing = [name for name in DEPENDENCIES if importlib.util.find_spec(name) is None]
    if missing:
        raise ReportError(
            f"The report needs {', '.join(missing)}. Install what it needs with: "
            "pip install 'protoseg_fast[report]'"
        )
    from protoseg_fast.report import write_report

    out = arguments.out or arguments.folder / "report.html"
    figures = out.parent / "figures" if arguments.figures else None
    page = write_report(arguments.folder, out, figures=figures)
    print(f"Wrote {page}")
    if figures is not None:
        print(f"Wrote {len(list(figures.iterdir()))} figures to {figures}")
    return 0
