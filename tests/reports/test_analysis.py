"""What a report says of a cohort: layers, units, and which cases to look at first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

for _name in ("matplotlib", "pandas", "pyarrow", "jinja2"):
    pytest.importorskip(_name)

import pandas as pd  # noqa: E402

from protoseg_fast.network.ability_map import SegmentationAbilityMap  # noqa: E402
from protoseg_fast.report import load, write_report  # noqa: E402
from protoseg_fast.report.analysis import TargetResult, analyse, dead_units  # noqa: E402
from protoseg_fast.report.load import Cohort, load_cohort  # noqa: E402
from protoseg_fast.report.review import review  # noqa: E402
from report_folders import TWO, Sweep, write_sweep  # noqa: E402


def test_mean_sa_is_that_of_the_table(
    results: list[TargetResult], table: SegmentationAbilityMap
) -> None:
    expected = table.mean_sa().value
    for t, result in enumerate(results):
        np.testing.assert_allclose(result.quality["mean_sa"], expected[:, t])


def test_layers_are_those_of_the_table(
    results: list[TargetResult], table: SegmentationAbilityMap
) -> None:
    summary = {r: table.summary(r).set_index(["layer", "target"]) for r in ("target", "output")}
    active = table.active_units(reference="target").set_index(["layer", "target"])
    for result in results:
        assert [layer.label for layer in result.layers] == table.layers
        for layer in result.layers:
            row = summary["target"].loc[(layer.label, result.name)]
            assert layer.truth == pytest.approx(row.sa)
            assert layer.output == pytest.approx(summary["output"].loc[row.name].sa)
            assert (layer.size, layer.channels) == (row.feature_size, row.channels)
            assert (layer.best_unit, layer.best_sa) == (
                row.best_unit,
                pytest.approx(row.best_unit_sa),
            )
            assert layer.active == pytest.approx(active.loc[row.name].share)


def test_spread_and_agreement_are_over_the_cases(
    results: list[TargetResult], table: SegmentationAbilityMap
) -> None:
    rows = table.to_pandas()
    for result in results:
        mine = rows[(rows.target == result.name) & (rows.group == "layer")]
        for layer in result.layers:
            scores = mine[(mine.layer == layer.label) & (mine.reference == "target")].sa
            assert layer.cases == len(scores) == TWO.labelled
            np.testing.assert_allclose(layer.spread, np.percentile(scores, [10, 90]))
        by_reference = {
            name: {(r.case, r.layer): r.sa for r in some.itertuples()}
            for name, some in mine.groupby("reference", observed=True)
        }
        pairs = [(sa, by_reference["output"][key]) for key, sa in by_reference["target"].items()]
        found = result.layer_agreement
        assert found.pairs == len(pairs) == TWO.labelled * TWO.layers
        assert found.mae == pytest.approx(np.mean([abs(a - b) for a, b in pairs]))
        assert found.pearson == pytest.approx(np.corrcoef(np.array(pairs).T)[0, 1])
        assert result.unit_agreement.pairs == TWO.layers * TWO.units


def test_dead_units_are_those_of_the_table(cohort: Cohort, table: SegmentationAbilityMap) -> None:
    names = cohort.layers["layer"].tolist()
    found = [(names[row.layer], row.group) for row in dead_units(cohort).itertuples()]
    assert found == list(table.dead()[["layer", "group"]].itertuples(index=False, name=None))
    assert found == [("input", 3), ("block4.conv", 3)]


@pytest.mark.parametrize("batch", [1, 2, 32])
def test_units_are_added_up_over_the_cases(
    folder: Path, table: SegmentationAbilityMap, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(load, "_BATCH", batch)
    units = load_cohort(folder).units.astype({"target": str, "reference": str})
    rows = table.to_pandas()
    rows = rows[rows.group != "layer"].astype({"target": str, "reference": str})
    group, layer = rows.group.astype(object).astype(int), rows.layer.cat.codes
    rows = rows.assign(group=group, layer=layer, alive=rows.predicted > 0)
    keys = ["layer", "group", "target", "reference"]
    expected = rows.groupby(keys).agg(
        sa=("sa", "mean"), scored=("sa", "count"), cases=("sa", "size"), alive=("alive", "any")
    )
    assert len(units) == len(expected)
    found = units.set_index(keys).loc[expected.index]
    np.testing.assert_allclose(found["sa"], expected["sa"])
    for name in ("scored", "cases", "alive"):
        np.testing.assert_array_equal(found[name], expected[name])


def test_review_looks_at_no_truth_and_begins_with_the_undefined(folder: Path) -> None:
    cohort = load_cohort(folder)
    before = [(case.name, case.reasons) for case in review(cohort, analyse(cohort))]
    assert {name for name, _ in before} == set(cohort.cases)
    known = cohort.outputs["dice"].notna()
    cohort.outputs.loc[known, "dice"] = 1 - cohort.outputs.loc[known, "dice"]
    assert [(case.name, case.reasons) for case in review(cohort, analyse(cohort))] == before
    last = cohort.cases.index(before[-1][0])
    cohort.outputs.loc[cohort.outputs["case"] == last, ["confidence", "foreground"]] = (np.nan, 0)
    cohort.layer_scores.loc[cohort.layer_scores["case"] == last, "sa"] = np.nan
    first = review(cohort, analyse(cohort))[0]
    assert first.name == before[-1][0]
    assert first.reasons == [f"{name}: nothing found" for name in TWO.targets]


def test_lowest_in_both_estimates_comes_first(tmp_path: Path) -> None:
    cohort = load_cohort(write_sweep(tmp_path, Sweep()))
    cohort.outputs.loc[7, "confidence"] = 0.0
    cohort.layer_scores.loc[cohort.layer_scores["case"] == 7, "sa"] /= 100
    first = review(cohort, analyse(cohort))[0]
    assert (first.index, first.place) == (7, 1)
    assert first.reasons == ["low mean SA, low Soft Dice Confidence"]


@pytest.mark.parametrize("damage", ["table", "json", "columns"])
def test_what_cannot_be_read_is_a_failed_case(tmp_path: Path, damage: str) -> None:
    write_sweep(tmp_path, Sweep(cases=3))
    table = tmp_path / "tables" / "case_001.parquet"
    if damage == "table":
        table.write_bytes(table.read_bytes()[:100])
    elif damage == "json":
        (tmp_path / "cases" / "case_001.json").write_text("{")
    else:
        pd.read_parquet(table).drop(columns="sa").to_parquet(table)
    cohort = load_cohort(tmp_path)
    assert cohort.cases == ["case_000", "case_002"]
    assert [failure.case for failure in cohort.failures] == ["broken_0", "case_001"]
    assert "cannot be read" in cohort.failures[1].reason
    assert "cannot be read" in write_report(tmp_path).read_text()
