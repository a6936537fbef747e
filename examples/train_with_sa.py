"""Does training hidden layers to segment help? A U-Net with and without sa_loss, same seeds.

Trains the demo's U-Net on the demo's brain scan (nothing is downloaded), once with its usual loss
and once with `sa_loss` on every convolution block in addition, for several seeds. Reports, on
slices kept from training, the Dice of the output and the SA score of every block, as a table and a
plot.

    pip install ".[demo]"
    python examples/train_with_sa.py --out train-with-sa

Both networks of a seed start from the same weights and see the same crops in the same order. A
second run into the same folder trains what is not there yet, and reports what was trained with its
steps and weight.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch

import protoseg_fast as psf
from protoseg_fast.demo.config import DemoConfig
from protoseg_fast.demo.data import TARGETS, Slices, load_slices, split
from protoseg_fast.demo.train import PEAK_LEARNING_RATE, random_crops, segmentation_loss
from protoseg_fast.demo.unet import UNet

ARMS = ("plain", "with sa_loss")
COLUMNS = ["arm", "steps", "weight", "seed", "layer", "target", "score", "seconds"]


@contextlib.contextmanager
def supervision(model: UNet, arm: str) -> Iterator[psf.DeepSupervision | None]:
    """Supervise the blocks in one arm, and nothing in the other."""
    if arm == "plain":
        yield None
    else:
        with psf.deep_supervision(model, [f"blocks.{name}" for name in model.blocks]) as supervised:
            yield supervised


def train(slices: Slices, arm: str, seed: int, steps: int, weight: float) -> tuple[UNet, float]:
    """Train one network; returns it in evaluation mode, and the seconds it took."""
    torch.manual_seed(seed)
    model = UNet(len(TARGETS)).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), lr=PEAK_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_LEARNING_RATE, total_steps=steps)
    generator = torch.Generator().manual_seed(seed)
    start = time.perf_counter()
    with supervision(model, arm) as supervised:
        for _ in range(steps):
            image, target, mask = random_crops(slices, generator)
            logits = model(image.contiguous(memory_format=torch.channels_last))
            loss = segmentation_loss(logits, target, mask)
            if supervised is not None:
                # The output guides the prototypes, but is not to be bent to suit them.
                pred = logits.detach().sigmoid()
                loss = loss + weight * supervised.loss(pred, target, mask)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return model.eval(), time.perf_counter() - start


def scores(model: UNet, slices: Slices) -> dict[str, np.ndarray]:
    """Return, for every block and the output, the mean score of each target, (T,)."""
    features: dict[str, torch.Tensor] = {}
    handles = [
        block.register_forward_hook(
            lambda _module, _inputs, output, name=name: features.__setitem__(name, output)
        )
        for name, block in model.blocks.items()
    ]
    found: dict[str, list[torch.Tensor]] = {}
    with torch.no_grad():
        for i in range(len(slices)):
            one = slices[i : i + 1]
            pred = model(one.image).sigmoid()
            guide = psf.Guide(pred, one.target, one.mask)
            for name, values in features.items():
                found.setdefault(name, []).append(guide.sa_score(values)[0, 0])
            found.setdefault("output", []).append(dice(pred > 0.5, one.target, one.mask))
    for handle in handles:
        handle.remove()
    return {name: np.nanmean(torch.stack(each).numpy(), axis=0) for name, each in found.items()}


def dice(pred: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Dice (T,) of one image within the mask; NaN if both are empty."""
    p, t = (pred & mask).flatten(2).double(), (target & mask).flatten(2).double()
    return (2 * (p * t).sum(2) / (p.sum(2) + t.sum(2)))[0]


def run(seeds: list[int], steps: int, weight: float, path: Path) -> pd.DataFrame:
    """Train and score every arm and seed; one row per arm, seed, layer and target.

    The rows of a network are written as soon as it is done; networks already in the file are not
    trained again. Returns the rows of these steps and this weight, of every seed in the file.
    """
    config = DemoConfig()
    training, held_out = split(load_slices(), config.held_out, config.gap)
    frame = read(path)
    for seed in seeds:
        for arm in ARMS:
            if (trained_with(frame, arm, steps, weight) & (frame["seed"] == seed)).any():
                print(f"seed {seed}, {arm}: in {path} already", flush=True)
                continue
            model, seconds = train(training, arm, seed, steps, weight)
            rows = [
                (arm, steps, weight_of(arm, weight), seed, layer, target, float(value), seconds)
                for layer, values in scores(model, held_out).items()
                for target, value in zip(TARGETS, values, strict=True)
            ]
            new = pd.DataFrame(rows, columns=COLUMNS)
            frame = new if frame.empty else pd.concat([frame, new], ignore_index=True)
            frame.to_csv(path, index=False)
            print(f"seed {seed}, {arm}: trained in {seconds:.0f} s", flush=True)
    chosen = [trained_with(frame, arm, steps, weight) for arm in ARMS]
    return frame[np.logical_or(*chosen)]


def read(path: Path) -> pd.DataFrame:
    """Read what was trained before, if anything was."""
    if not path.exists():
        return pd.DataFrame(columns=COLUMNS)
    frame = pd.read_csv(path)
    if list(frame.columns) != COLUMNS:
        raise SystemExit(f"{path} does not say with which steps and weight; choose another --out.")
    return frame


def weight_of(arm: str, weight: float) -> float:
    """The weight of sa_loss in an arm."""
    return 0.0 if arm == "plain" else weight


def trained_with(frame: pd.DataFrame, arm: str, steps: int, weight: float) -> pd.Series:
    """Which rows are of an arm with these steps and this weight."""
    weights = frame["weight"].astype(float)
    same_weight = np.isclose(weights, weight_of(arm, weight), rtol=1e-9, atol=0)
    return (frame["arm"] == arm) & (frame["steps"] == steps) & same_weight


def summarise(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per layer: the mean over seeds and targets of each arm, and their difference.

    The spread is that of the difference between arms of one seed: smallest to largest.
    """
    by_seed = frame.groupby(["layer", "arm", "seed"], sort=False)["score"].mean().unstack("arm")
    difference = by_seed[ARMS[1]] - by_seed[ARMS[0]]
    table = by_seed.groupby(level="layer", sort=False).mean()
    table["difference"] = difference.groupby(level="layer", sort=False).mean()
    table["lowest"] = difference.groupby(level="layer", sort=False).min()
    table["highest"] = difference.groupby(level="layer", sort=False).max()
    return table


def plot(frame: pd.DataFrame, path: Path) -> None:
    """Draw the score of every layer: a line for each arm, a dot for each seed."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    layers = list(dict.fromkeys(frame["layer"]))
    figure, axes = plt.subplots(1, len(TARGETS), figsize=(10, 3.6), sharey=True)
    for ax, target in zip(axes, TARGETS, strict=True):
        for arm, colour in zip(ARMS, ("#666666", "#d1495b"), strict=True):
            chosen = frame[(frame["target"] == target) & (frame["arm"] == arm)]
            mean = chosen.groupby("layer")["score"].mean()
            ax.plot(layers, mean[layers], color=colour, label=arm)
            ax.scatter(chosen["layer"], chosen["score"], color=colour, s=9, alpha=0.6)
        ax.set_title(target)
        ax.tick_params(axis="x", rotation=90)
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("SA score (output: Dice)")
    axes[0].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("train-with-sa"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument(
        "--weight", type=float, default=0.5, help="of sa_loss beside the usual loss"
    )
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "scores.csv"
    frame = run(arguments.seeds, arguments.steps, arguments.weight, path)
    plot(frame, arguments.out / "train_with_sa.png")
    print(summarise(frame).round(3).to_string())
    output = frame[frame["layer"] == "output"].groupby(["target", "arm"], sort=False)["score"]
    print(output.agg(["mean", "min", "max"]).round(3).to_string())
    print(frame.groupby("arm", sort=False)["seconds"].mean().round(0).to_string())


if __name__ == "__main__":
    main()
