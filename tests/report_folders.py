"""Writes a folder as a sweep would, of random but plausible scores."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from protoseg_fast.network.ability_map import SegmentationAbilityMap
from protoseg_fast.network.records import COLUMNS

DEAD = (0, 3)  # unit 3 of layer 0 (and of every other fourth layer) is dead
SLEEPS = (1, 2)  # unit 2 of layer 1 draws nothing in the first case, and something in others


@dataclass(frozen=True)
class Sweep:
    """What to write: how many of what, and what is missing."""

    cases: int = 12
    layers: int = 4
    units: int = 6
    targets: tuple[str, ...] = ("liver",)
    labelled: int = 12  # the first so many
    previews: bool = True
    failures: int = 1
    undefined: bool = False  # every score NaN
    side: int = 48
    seed: int = 0


#: Fourteen cases, nine of them with truth, two targets.
TWO = Sweep(cases=14, labelled=9, targets=("kidney", "tumour & core"), layers=5)


def write_sweep(folder: Path, sweep: Sweep) -> Path:
    """Write the folder; returns it."""
    rng = np.random.default_rng(sweep.seed)
    for name in ("tables", "cases", "previews", "failures"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    ability = 0.25 + 0.6 * rng.random((sweep.layers, sweep.units + 1, len(sweep.targets)))
    for number in range(sweep.cases):
        _write_case(folder, sweep, rng, ability, number)
    for number in range(sweep.failures):
        told = {
            "case": f"broken_{number}",
            "reason": "The image <holds> NaN in 3 voxels.",
            "kind": "ValueError",
            "traceback": 'Traceback (most recent call last):\n  File "x.py"\nValueError: NaN\n',
        }
        (folder / "failures" / f"broken_{number}.json").write_text(json.dumps(told))
    config = {"model": "unet:build", "layers": ["convs"], "versions": {"torch": "2.0"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "summary.json").write_text(json.dumps({"done": sweep.cases}))
    return folder


def _write_case(
    folder: Path, sweep: Sweep, rng: np.random.Generator, ability: np.ndarray, number: int
) -> None:
    case = f"case_{number:03}"
    labelled = number < sweep.labelled
    ease = rng.uniform(0.5, 1.1)
    frame = _scores(sweep, rng, ability * ease, case, labelled)
    SegmentationAbilityMap(frame).save(folder / "tables" / f"{case}.parquet")
    outputs = {}
    for target in sweep.targets:
        dice = float(np.clip(0.85 * ease + 0.05 * rng.normal(), 0, 1))
        outputs[target] = {
            "dice": dice if labelled else None,
            "soft_dice_confidence": float(np.clip(dice + 0.1 * rng.normal(), 0, 1)),
            "foreground": 0 if sweep.undefined else int(rng.integers(100, 900)),
        }
    about = {
        "case": case, "image": f"images/{case}.nii.gz",
        "label": f"labels/{case}.nii.gz" if labelled else None,
        "shape": [sweep.side, sweep.side + 8, 20], "affine": np.eye(4).tolist(),
        "spacing": [1.0, 1.0, 2.0], "outputs": outputs, "status": "done",
    }  # fmt: skip
    (folder / "cases" / f"{case}.json").write_text(json.dumps(about))
    if sweep.previews:
        _write_preview(folder / "previews" / f"{case}.npz", sweep, rng, labelled)


def _scores(
    sweep: Sweep, rng: np.random.Generator, ability: np.ndarray, case: str, labelled: bool
):  # -> pandas.DataFrame
    """Return the rows of one case: layer by layer, whole and units, target by target."""
    import pandas as pd

    groups = ["layer", *range(sweep.units)]
    references = ["target", "output"] if labelled else ["output"]
    index = pd.MultiIndex.from_product(
        [range(sweep.layers), range(len(references)), range(len(groups)), range(len(sweep.targets))]
    )
    layer, reference, group, target = (index.get_level_values(i).to_numpy() for i in range(4))
    names = ["input", *(f"block{i}.conv" for i in range(1, sweep.layers))]
    voxels, actual = 10_000, 1_000
    share = np.clip(ability[layer, group, target] + 0.05 * rng.normal(size=len(index)), 0, 1)
    tp = np.round(share * actual).astype(np.int64)
    predicted = tp + rng.integers(0, 400, len(index))
    dead = (layer % 4 == DEAD[0]) & (group == DEAD[1] + 1)
    if case.endswith("_000"):
        dead |= (layer == SLEEPS[0]) & (group == SLEEPS[1] + 1)
    tp[dead] = predicted[dead] = 0
    sa = 2 * tp / (predicted + actual)
    if sweep.undefined:
        sa[:] = np.nan
    columns = {
        "case": pd.Categorical([case] * len(index)),
        "layer": pd.Categorical.from_codes(layer, names),
        "call": np.zeros(len(index), np.int64),
        "group": pd.Categorical.from_codes(group, pd.Index(groups, dtype=object)),
        "target": pd.Categorical.from_codes(target, list(sweep.targets)),
        "reference": pd.Categorical.from_codes(reference, references),
        "sa": sa, "tp": tp, "predicted": predicted,
        "actual": np.full(len(index), actual), "voxels": np.full(len(index), voxels),
        "feature_size": pd.Categorical(["12x14x5"] * len(index)),
        "channels": np.full(len(index), sweep.units),
    }  # fmt: skip
    return pd.DataFrame(columns)[list(COLUMNS)]


def _write_preview(path: Path, sweep: Sweep, rng: np.random.Generator, labelled: bool) -> None:
    height, width = sweep.side, sweep.side + 8
    y, x = np.mgrid[:height, :width] / sweep.side
    blob = np.hypot(y - 0.5, x - 0.6)
    image = np.clip(255 * (0.6 - blob) + rng.normal(0, 12, blob.shape), 0, 255).astype(np.uint8)
    disc = np.stack([blob < rng.uniform(0.15, 0.3) for _ in sweep.targets])
    shift = [np.roll(disc, steps, axis=2) for steps in (2, 5)]
    maps = {"output": shift[0], "best_unit": shift[1]} | ({"truth": disc} if labelled else {})
    np.savez_compressed(path, image=image, axis=2, index=10, **maps)
