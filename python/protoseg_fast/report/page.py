"""The page: one HTML file with everything inside it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from markupsafe import Markup

import protoseg_fast as psf
from protoseg_fast.network.records import TARGET
from protoseg_fast.report.analysis import ACTIVE, TargetResult, dead_units
from protoseg_fast.report.figures import FIGURES
from protoseg_fast.report.load import Cohort
from protoseg_fast.report.review import SHOWN, CaseReview
from protoseg_fast.report.statistics import RESAMPLES
from protoseg_fast.web.svg import PAGE, inline_svg
from protoseg_fast.web.template import UNDEFINED, environment, signed

__all__ = ["ranges", "render_page", "slug"]

TEMPLATE = "page.html.j2"
#: Units listed in the table of the best ones.
BEST_UNITS = 15
#: An estimate whose rank correlation with Dice is lower does not follow it well.
FOLLOWS = 0.4
#: Tracebacks keep their end, which says what happened.
LONGEST_TRACEBACK = 4000


def render_page(
    cohort: Cohort, results: Sequence[TargetResult], reviews: Sequence[CaseReview]
) -> str:
    """Return the page of a cohort as HTML text."""
    here = Path(__file__).parent
    templates = environment(here)
    templates.filters |= {"percent": _percent, "whole": _whole, "v": _data}
    script = Markup((here / "report.js").read_text(encoding="utf-8"))
    shown = [review for review in reviews if review.pictures is not None]
    return templates.get_template(TEMPLATE).render(
        cohort=cohort,
        results=results,
        reviews=reviews,
        shown=shown,
        limit=SHOWN,
        many=len(results) > 1,
        charts=_charts(results),
        best_units={result.name: _best_units(cohort, result) for result in results},
        dead=_dead(cohort),
        units=_unit_count(cohort),
        verdicts={result.name: _verdict(result) for result in results},
        failures=[(failure, failure.traceback[-LONGEST_TRACEBACK:]) for failure in cohort.failures],
        facts=[*_facts("", cohort.config), *_facts("summary.", cohort.summary)],
        truth=TARGET,
        active=ACTIVE,
        resamples=RESAMPLES,
        version=psf.__version__,
        script=script,
    )


def slug(name: str, number: int) -> str:
    """Return a target's name for ids and file names; its number tells equal ones apart."""
    text = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return f"{text}-{number}" if text else str(number)


def _charts(results: Sequence[TargetResult]) -> dict[str, dict[str, Markup]]:
    """Per target and figure: the SVG of those that say anything."""
    charts: dict[str, dict[str, Markup]] = {}
    for t, result in enumerate(results):
        charts[result.name] = {}
        for drawing in FIGURES:
            if drawing.applies(result):
                figure = drawing(result, PAGE)
                name = f"{drawing.name}-{slug(result.name, t)}"
                with matplotlib.rc_context(PAGE.style()):
                    svg = inline_svg(figure, name, drawing.describe(result))
                charts[result.name][drawing.name] = svg
    return charts


def _best_units(cohort: Cohort, result: TargetResult) -> list[dict[str, Any]]:
    units = cohort.units
    rows = units[(units["target"] == result.name) & (units["reference"] == result.reference)]
    labels = cohort.layers["label"].tolist()
    # nlargest puts off columns of objects: an empty table has them.
    best = (
        rows.assign(sa=pd.to_numeric(rows["sa"])).dropna(subset=["sa"]).nlargest(BEST_UNITS, "sa")
    )
    return [
        {
            "layer": labels[row.layer],
            "unit": int(row.group),
            "sa": float(row.sa),
            "cases": int(row.scored),
        }
        for row in best.itertuples(index=False)
    ]


def _dead(cohort: Cohort) -> list[dict[str, Any]]:
    """Return the layers with dead units: label, how many, of how many, which."""
    labels = cohort.layers["label"].tolist()
    counts = cohort.units.groupby("layer")["group"].nunique().to_dict()
    return [
        {"layer": labels[layer], "dead": len(rows), "units": counts[layer], "which": ranges(rows)}
        for layer, rows in dead_units(cohort).groupby("layer")["group"]
    ]


def _unit_count(cohort: Cohort) -> int:
    return len(cohort.units[["layer", "group"]].drop_duplicates())


def ranges(numbers: Sequence[int]) -> str:
    """Return ascending numbers with runs drawn together: "0, 3–5, 9"."""
    values = np.asarray(numbers, np.int64)
    runs = np.split(values, np.flatnonzero(np.diff(values) != 1) + 1)
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _verdict(result: TargetResult) -> str:
    """Say which of the two estimates ranks the cases better, and whether either does well."""
    difference, low, high = result.better
    pairs = result.mean_sa.agreement.pairs
    if not math.isfinite(difference):
        return (
            f"With {pairs} case{'s' * (pairs != 1)} whose Dice and mean SA are known, it cannot be "
            "said which of the two estimates ranks cases better: there are fewer than ten, or one "
            "of the three values is the same in all of them."
        )
    interval = f"difference {signed(difference)}, 95 % interval {signed(low)} to {signed(high)}"
    best = max(e.agreement.spearman for e in (result.mean_sa, result.confidence))
    weak = f" Neither follows Dice well here: ρ is below {FOLLOWS}." if best < FOLLOWS else ""  # noqa: RUF001
    if low <= 0 <= high:
        return (
            f"On these {pairs} cases the two estimates cannot be told apart by how they rank cases "
            f"({interval}). Soft Dice Confidence is the simpler one.{weak}"
        )
    better, other = ("mean SA", "Soft Dice Confidence")[:: 1 if low > 0 else -1]
    return f"On these {pairs} cases {better} ranks cases better than {other} ({interval}).{weak}"


def _facts(prefix: str, tree: dict[str, Any]) -> list[tuple[str, str]]:
    """Flatten what the sweep wrote about itself: dotted name and value."""
    facts: list[tuple[str, str]] = []
    for name, value in tree.items():
        if isinstance(value, dict):
            facts += _facts(f"{prefix}{name}.", value)
        elif isinstance(value, list):
            text = ", ".join(map(str, value[:20])) + (" …" if len(value) > 20 else "")
            facts.append((f"{prefix}{name}", text))
        else:
            facts.append((f"{prefix}{name}", str(value)))
    return facts


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if math.isfinite(share) else UNDEFINED


def _whole(value: float) -> str:
    return f"{value:,.0f}" if math.isfinite(value) else UNDEFINED


def _data(value: float) -> str:
    """Return a number as a cell's sort key; "" if it is unknown."""
    return f"{value:.6g}" if math.isfinite(value) else ""
