"""The subcommands ``protoseg-fast report`` and ``export``. Imports nothing heavy."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from protoseg_fast.report.errors import DEPENDENCIES, ReportError

__all__ = ["register"]


def register(commands: Any, interrupts_held: Callable[[], AbstractContextManager[None]]) -> None:
    """Add the subcommands to argparse's; each sets ``run``, which returns the exit status.

    Within ``interrupts_held``, Ctrl-C waits: importing torch would abort the process.
    """
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
    export = commands.add_parser(
        "export",
        help="write what a layer or unit segments in a case of a sweep as NIfTI",
        description="Run the network of a sweep once more on one of its cases, and write what a "
        "layer or a single unit segments there to a NIfTI file that lies where the image does.",
    )
    export.add_argument("folder", metavar="DIR", type=Path, help="folder that the sweep wrote")
    export.add_argument("case", metavar="CASE", help="name of the case")
    export.add_argument("--layer", required=True, help="name of the layer, as in the tables")
    export.add_argument(
        "--unit",
        type=_unit,
        default="layer",
        metavar="N",
        help="a unit of the layer, from 0; the whole layer if omitted",
    )
    export.add_argument("--target", help="whose prototypes (default: the first target)")
    export.add_argument(
        "--call", type=int, default=0, metavar="N", help="which call of the layer (default: 0)"
    )
    export.add_argument(
        "--out", metavar="FILE", type=Path, help=".nii or .nii.gz (default: CASE-LAYER-UNIT.nii.gz)"
    )
    for name, text in _MOVED.items():
        export.add_argument(f"--{name}", help=f"{text}; as in the sweep if omitted")
    export.set_defaults(run=lambda arguments: _export(arguments, interrupts_held))


#: Options of the sweep that may have changed since.
_MOVED = {
    "model": "MODULE:FUNCTION or FILE.py:FUNCTION of the network",
    "weights": "its weights",
    "device": "where the network runs",
}


def _unit(text: str) -> int | str:
    return text if text == "layer" else int(text)


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


def _export(
    arguments: argparse.Namespace, interrupts_held: Callable[[], AbstractContextManager[None]]
) -> int:
    missing = [name for name in ("torch", "nibabel") if importlib.util.find_spec(name) is None]
    if missing:
        raise ReportError(
            f"The export needs {', '.join(missing)}. Install what it needs with: "
            "pip install 'protoseg_fast[sweep]'"
        )
    with interrupts_held():
        from protoseg_fast.cohort.export import export_map
    unit, layer = arguments.unit, arguments.layer
    out = arguments.out or Path(f"{arguments.case}-{layer}-{unit}.nii.gz")
    options = {name: getattr(arguments, name) for name in _MOVED}
    try:
        voxels = export_map(
            *(arguments.folder, arguments.case, layer, out),
            unit=unit, target=arguments.target, call=arguments.call, **options,
        )  # fmt: skip
    except ValueError as error:
        raise ReportError(str(error)) from error
    print(f"Wrote {out}: {voxels} voxels")
    return 0
