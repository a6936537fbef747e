"""The code of docs/cohorts.md, on a real sweep: every query's answer is computed again by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import cohorts
import protoseg_fast as psf
from markdown import Block, blocks
from networks import library
from protoseg_fast.cohort.summary import merge

PAGE = "docs/cohorts.md"
OPTIONS = {"activation": "softmax", "workers": 0, "progress": "quiet", "threads": 1}
DEAD = {"first": 5, "twice": 0}


class Network(nn.Module):
    """37 units, some of them dead; one layer is called twice. Draws what is bright, by unit 1."""

    def __init__(self) -> None:
        super().__init__()
        same = {"kernel_size": 3, "padding": 1, "padding_mode": "replicate"}  # blank stays blank
        self.first = nn.Conv3d(1, 17, **same)
        self.twice = nn.Conv3d(17, 17, **same)
        self.head = nn.Conv3d(17, 3, 1)
        with torch.no_grad():
            for layer, unit in DEAD.items():
                convolution = self.get_submodule(layer)
                convolution.weight[unit] = convolution.bias[unit] = 0
            self.first.weight[1], self.first.bias[1] = 1 / 27, 0
            self.twice.weight[1] = self.twice.bias[1] = 0
            self.twice.weight[1, 1, 1, 1, 1] = 1
            self.head.weight[:, 1] = torch.tensor([0, 8, 16]).reshape(3, 1, 1, 1)
            self.head.bias[:] = torch.tensor([0, -4, -16])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.twice(self.first(x).relu()).relu()
        return self.head(self.twice(x))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sweep in ``results``: a case has no label, and of another nothing is known,
    since it is blank, so that its scores are undefined.
    """
    folder = tmp_path_factory.mktemp("queries")
    cases: list[dict[str, Any]] = []
    for i in range(6):
        image, label = cohorts.volume(i)
        cases.append({"name": f"ball_{i}", "image": image[None], "label": label})
    del cases[4]["label"]
    cases[5] = {"name": "blank", "image": np.zeros((1, *cohorts.SIZE)), "label": 0 * label}
    torch.manual_seed(3)
    targets = {"anterior": 1, "posterior": 2}
    layers = ["convs", "input"]
    psf.sweep(Network(), cases, out=folder / "results", targets=targets, layers=layers, **OPTIONS)
    return folder


@pytest.fixture(scope="module")
def rows(folder: Path) -> pd.DataFrame:
    """All tables, read by pandas, the group as text."""
    parts = [pd.read_parquet(path) for path in sorted(folder.glob("results/tables/*"))]
    names = ["case", "layer", "group", "target", "reference"]
    frame = pd.concat([part.astype(dict.fromkeys(names, str)) for part in parts])
    assert frame["case"].nunique() == 6
    assert set(frame["call"]) == {0, 1}
    assert frame["sa"].isna().any()
    return frame


def scores_by(frame: pd.DataFrame, keys: list[str]) -> dict[tuple, list[float]]:
    """Return the scores that are defined, by keys."""
    found: dict[tuple, list[float]] = {}
    for *key, score in frame[[*keys, "sa"]].itertuples(index=False):
        held = found.setdefault(tuple(key), [])
        if not np.isnan(score):
            held.append(score)
    return found


def best_layers(rows: pd.DataFrame, answer: list[tuple]) -> None:
    kept = rows.query("group == 'layer' and target == 'anterior' and reference == 'target'")
    scores = scores_by(kept, ["layer", "call"])
    assert len(answer) == len(scores) == 5
    for layer, call, sa, spread, cases in answer:
        held = scores[layer, call]
        assert cases == len(held) == 4, "one has no label, one is blank"
        assert sa == pytest.approx(np.mean(held))
        assert spread == pytest.approx(np.std(held, ddof=1))
    assert_descending([row[2] for row in answer])


def best_units(rows: pd.DataFrame, answer: list[tuple]) -> None:
    kept = rows.query("group != 'layer' and target == 'anterior' and reference == 'target'")
    scores = scores_by(kept, ["layer", "call", "group"])
    means = {key: np.mean(held) for key, held in scores.items()}
    assert len(means) > 20
    assert len({row[:3] for row in answer}) == 20
    for layer, call, unit, sa in answer:
        assert sa == pytest.approx(means[layer, call, unit])
    assert_descending([row[3] for row in answer])
    assert [row[3] for row in answer] == pytest.approx(sorted(means.values())[:-21:-1])


def dead_units(rows: pd.DataFrame, answer: list[tuple]) -> None:
    units = rows.query("group != 'layer' and reference == 'output'")
    expected = set()
    for key, of_unit in units.groupby(["layer", "call", "group"]):
        if (of_unit["predicted"] == 0).all() and of_unit["sa"].notna().any():
            expected.add(key)
    assert set(answer) == expected
    assert len(answer) == len(expected)
    dead = {("first", 0, "5"), ("twice", 0, "0"), ("twice", 1, "0")}
    assert dead <= expected, "the units whose weights are 0"
    alive = units.query("case != 'blank'").groupby(["layer", "call", "group"])["predicted"].max()
    assert len(expected) == (alive == 0).sum() < len(alive)


def least_reliable(rows: pd.DataFrame, answer: list[tuple]) -> None:
    kept = rows.query("group == 'layer' and reference == 'output' and layer != 'input'")
    scores = scores_by(kept, ["case"])
    assert {row[0] for row in answer} == {key[0] for key in scores}
    *known, last = answer
    assert last == ("blank", None), "undefined comes last, and is no number"
    for case, sa in known:
        assert sa == pytest.approx(np.mean(scores[case,]))
    assert_descending([-row[1] for row in known])


def assert_descending(values: list[float]) -> None:
    assert values == sorted(values, reverse=True)
    assert len(set(values)) > 1


ANSWERS: dict[str, Callable[[pd.DataFrame, list[tuple]], None]] = {
    "Which layers segment the target best?": best_layers,
    "Which single units?": best_units,
    "Which units are dead, in every case and for every target?": dead_units,
    "Which cases look least reliable, without ground truth?": least_reliable,
}


def test_every_query_is_tested() -> None:
    assert [block.heading for block in blocks(PAGE, "sql")] == list(ANSWERS)


@pytest.mark.parametrize("block", blocks(PAGE, "sql"), ids=lambda block: block.heading)
def test_queries_answer_what_pandas_does(
    block: Block, folder: Path, rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    duckdb = library("duckdb")
    monkeypatch.chdir(folder)
    with duckdb.connect() as connection:
        answer = connection.sql(block.text).fetchall()
    ANSWERS[block.heading](rows, answer)


def test_dead_units_are_those_of_the_merged_table(folder: Path) -> None:
    """What the query asks is what `SegmentationAbilityMap.dead` says."""
    duckdb = library("duckdb")
    [query] = [b.text for b in blocks(PAGE, "sql") if "dead" in b.heading]
    path = folder / "results" / "tables" / "*.parquet"
    with duckdb.connect() as connection:
        answer = connection.sql(query.replace("results/tables/*.parquet", str(path))).fetchall()
    dead = psf.SegmentationAbilityMap.load(merge(folder / "results")).dead()
    assert sorted(answer) == sorted(dead.astype({"group": str}).itertuples(index=False, name=None))


# --- the page's Python ----------------------------------------------------------------------------


def python(word: str) -> Block:
    [block] = [block for block in blocks(PAGE, "python") if word in block.text]
    return block


class Tracker:
    """Stands for that of an experiment."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def log(self, event: dict[str, Any]) -> None:
        self.events.append(event)


def test_correlation_with_dice(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    frame = python("corr").run()["frame"]
    shown = capsys.readouterr().out
    expected = [
        (metrics["Dice"], metrics["MeanSAOutput"])
        for case in json.loads((folder / "results/summary.json").read_text())["metric_per_case"]
        for metrics in case["metrics"].values()
        if None not in (metrics["Dice"], metrics["MeanSAOutput"])
    ]
    assert len(expected) == 8
    assert sorted(zip(frame["Dice"], frame["MeanSAOutput"], strict=True)) == sorted(expected)
    ranks = [np.argsort(np.argsort(column)) for column in np.array(expected).T]
    rho = np.corrcoef(ranks)[0, 1]
    line = next(line for line in shown.splitlines() if line.startswith("MeanSAOutput"))
    assert float(line.split()[1]) == pytest.approx(rho, abs=1e-5)


def test_sweeps_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cohorts.decathlon(tmp_path / "Task04_Hippocampus", 2)
    image, label = cohorts.volume(0)
    nib.save(nib.Nifti1Image(image, cohorts.AFFINE), tmp_path / "b.nii.gz")
    nib.save(nib.Nifti1Image(label, cohorts.AFFINE), tmp_path / "b_label.nii.gz")

    monkeypatch.chdir(tmp_path)
    names = {"model": cohorts.small(), "image": image[None], "label": label, "tracker": Tracker()}
    python("psf.sweep").run({"psf": psf, **names})
    assert [(e["event"], e["case"]) for e in names["tracker"].events] == [
        ("done", "a"),
        ("done", "b"),
    ]
    tables = sorted(path.stem for path in tmp_path.rglob("*.parquet"))
    assert tables == ["a", "b", "ball_000", "ball_001"]
