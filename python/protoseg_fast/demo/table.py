"""The compact table the demo prints."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from protoseg_fast.demo.data import TARGETS
from protoseg_fast.demo.records import OUTPUT, TRUTH
from protoseg_fast.demo.result import DemoResult
from protoseg_fast.demo.score import BATCH
from protoseg_fast.demo.summary import GOOD_SA, LayerSummary
from protoseg_fast.web.template import duration


def print_result(console: Console, result: DemoResult) -> None:
    """Print the table of layers, then what the run found and took."""
    console.print(layer_table(result))
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column()
    for name, text in closing_facts(result):
        facts.add_row(name, text)
    console.print(facts, highlight=False)


def layer_table(result: DemoResult) -> Table:
    """Layer, units, feature size; per target layer SA, best unit and share of good units."""
    table = Table(
        title="SA score (mean over the clean held-out slices, against the ground truth)",
        caption=f"best: the unit with the highest SA. ≥{GOOD_SA:g}: share of units that reach it.",
        header_style="bold",
        padding=(0, 1),
    )
    table.add_column("layer")
    table.add_column("units", justify="right")
    table.add_column("size", justify="right")
    for target in TARGETS:
        table.add_column(target.split()[0], justify="right", style="bold")
        table.add_column("best", justify="right")
        table.add_column(f"≥{GOOD_SA:g}", justify="right")
    for rows in zip(*(result.summary.layers[target] for target in TARGETS), strict=True):
        layer = rows[0].layer
        size = "x".join(str(extent) for extent in layer.size)
        cells = [cell for row in rows for cell in _cells(row)]
        table.add_row(layer.name, str(layer.units), size, *cells)
    return table


def _cells(row: LayerSummary) -> tuple[str, str, str]:
    best = f"{row.unit_sa[row.best]:.2f} #{row.best}"
    return f"{row.truth:.2f}", best, f"{row.good_share:.0%}"


def closing_facts(result: DemoResult) -> list[tuple[str, str]]:
    """What the run found and took: name and sentence."""
    summary, sweep, published = result.summary, result.sweep, result.published
    clean = summary.by_degradation[0]
    dice = ", ".join(
        f"{target} {summary.dice[target]:.2f} (mean SA {clean.mean_sa[target]:.2f})"
        for target in TARGETS
    )
    correlation = ", ".join(
        f"{target} r = {summary.correlation[target].pearson:.2f}" for target in TARGETS
    )
    points = summary.correlation[TARGETS[0]].points
    truth_s, output_s = sweep.scoring_s[TRUTH], sweep.scoring_s[OUTPUT]
    return [
        ("Dice", f"of the output on clean held-out slices: {dice}"),
        ("mean SA", f"(no ground truth) against Dice over {points} images: {correlation}"),
        ("forward", f"{sweep.forward_s:.1f} s for {sweep.images} images"),
        (
            "scoring",
            f"{truth_s:.1f} s for {result.units} units and the {len(sweep.layers)} layers they are "
            f"in, both targets: {result.scoring_ratio:.2g} x the forward passes (without ground "
            f"truth: {output_s:.1f} s)",
        ),
        (
            "published",
            f"about {duration(published.extrapolated_s)} for the same unit scores by the "
            f"published formulation: {result.speedup:.0f} x. Extrapolated from "
            f"{published.units_timed} units, {BATCH} images at once",
        ),
        ("in all", f"{sum(result.seconds.values()):.0f} s"),
    ]
