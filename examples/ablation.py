"""Are units of low SA score dispensable? Switch them off, and see what the output loses.

Trains the demo's U-Net on its brain scan, scores every unit on some held-out slices, then
switches off a share of the units of every layer, those of lowest score, of highest score, or
drawn at random, and takes the output's Dice on other held-out slices. Every layer loses the same
share, so that the choices differ in nothing but which units go. Prints the mean over seeds, each
a network of its own, and the spread between them.

    pip install ".[demo]" && python examples/ablation.py --seeds 3 --plot ablation.png
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import protoseg_fast as psf
from protoseg_fast.demo.config import DemoConfig
from protoseg_fast.demo.data import TARGETS, Slices, load_slices, split
from protoseg_fast.demo.train import train

SHARES = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7)
CHOICES = ("lowest", "highest", "random")


def score_units(model: nn.Module, slices: Slices, layers: Sequence[str]) -> pd.DataFrame:
    """Columns layer, group, sa: the mean over slices and targets, NaN counted as 0."""
    table = psf.segmentation_ability_map(
        model, slices.image, target=slices.target, mask=slices.mask, layers=layers,
        targets=TARGETS, groups="unit",
    )  # fmt: skip
    frame = table.to_pandas()
    frame = frame[frame.reference == "target"].assign(sa=lambda rows: rows.sa.fillna(0))
    return frame.groupby(["layer", "group"], observed=True, sort=False).sa.mean().reset_index()


def choose(
    units: pd.DataFrame, share: float, choice: str, rng: np.random.Generator
) -> dict[str, list[int]]:
    """Units by layer: a share of every layer's, rounded down."""
    chosen = {}
    for layer, rows in units.groupby("layer", observed=True, sort=False):
        ranked = rows.sort_values("sa", ascending=choice != "highest", kind="stable").group
        order = rng.permutation(ranked) if choice == "random" else ranked
        chosen[str(layer)] = [int(unit) for unit in order[: int(share * len(rows))]]
    return chosen


def output_dice(model: nn.Module, slices: Slices) -> float:
    """Mean Dice of the output over targets, each over all slices together."""
    with torch.inference_mode():
        found = (model(slices.image) > 0) & slices.mask
    axes = (0, 2, 3)
    both = (found & slices.target).sum(axes)
    return float((2 * both / (found.sum(axes) + slices.target.sum(axes))).mean())


def run(seed: int, steps: int, draws: int) -> list[dict[str, float | str | int]]:
    """Rows of one network: choice, share, dice; random choices are averaged over draws."""
    config = DemoConfig(seed=seed, steps=steps)
    training, held_out = split(load_slices(), config.held_out, config.gap)
    model, _ = train(
        training, steps=steps, seed=seed, device=torch.device("cpu"), on_step=lambda loss: None
    )
    model.eval()
    ranking, judging = (
        held_out[torch.arange(0, len(held_out), 2)],
        held_out[torch.arange(1, len(held_out), 2)],
    )
    units = score_units(model, ranking, ["blocks.*.2"])  # after each block's activation
    rng = np.random.default_rng(seed)
    rows: list[dict[str, float | str | int]] = []
    for share in SHARES:
        for choice in CHOICES:
            dices = []
            for _ in range(draws if choice == "random" else 1):
                with psf.ablate(model, choose(units, share, choice, rng)):
                    dices.append(output_dice(model, judging))
            rows.append({"seed": seed, "share": share, "choice": choice, "dice": np.mean(dices)})
    return rows


def show(frame: pd.DataFrame, console: Console) -> pd.DataFrame:
    """Print mean and spread over seeds; return them."""
    grouped = frame.groupby(["share", "choice"], sort=False).dice
    summary = grouped.agg(mean="mean", low="min", high="max").reset_index()
    table = Table(title=f"Dice of the output, mean (lowest to highest) of {frame.seed.nunique()}")
    table.add_column("units off", justify="right")
    for choice in CHOICES:
        table.add_column(choice, justify="right")
    for share, rows in summary.groupby("share", sort=False):
        cells = rows.set_index("choice").loc[list(CHOICES)]
        texts = [f"{r.mean_:.3f} ({r.low:.3f} to {r.high:.3f})" for r in
                 cells.rename(columns={"mean": "mean_"}).itertuples()]  # fmt: skip
        table.add_row(f"{share:.0%}", *texts)
    console.print(table)
    return summary


def plot(summary: pd.DataFrame, path: str) -> None:
    """Draw the table: Dice against the share of units that are off."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
    for choice in CHOICES:
        rows = summary[summary.choice == choice]
        (line,) = axes.plot(rows.share, rows["mean"], "o-", label=f"{choice} SA" if choice !=
                            "random" else choice)  # fmt: skip
        axes.fill_between(rows.share, rows.low, rows.high, alpha=0.2, color=line.get_color())
    axes.set(xlabel="share of every layer's units off", ylabel="Dice of the output", ylim=(0, 1))
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="networks to train (default 3)")
    parser.add_argument("--steps", type=int, default=180, help="training steps (default 180)")
    parser.add_argument("--draws", type=int, default=5, help="random choices each (default 5)")
    parser.add_argument("--plot", metavar="PNG", help="write a figure")
    options = parser.parse_args(arguments)
    rows = [row for s in range(options.seeds) for row in run(s, options.steps, options.draws)]
    summary = show(pd.DataFrame(rows), Console())
    if options.plot:
        plot(summary, options.plot)


if __name__ == "__main__":
    main()
