"""The report of a sweep, on folders of random scores: its statistics, its page, in a browser."""

from __future__ import annotations

import base64
import io
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

for _name in ("matplotlib", "pandas", "pyarrow", "jinja2"):
    pytest.importorskip(_name)

import pandas as pd  # noqa: E402
from PIL import Image  # noqa: E402

from pages import Page  # noqa: E402
from protoseg_fast import cli  # noqa: E402
from protoseg_fast.network.ability_map import SegmentationAbilityMap  # noqa: E402
from protoseg_fast.report import ReportError, load, statistics, write_report  # noqa: E402
from protoseg_fast.report.analysis import TargetResult, analyse, dead_units  # noqa: E402
from protoseg_fast.report.load import Cohort, load_cohort  # noqa: E402
from protoseg_fast.report.page import _verdict, ranges  # noqa: E402
from protoseg_fast.report.review import LONGEST, Pictures, draw, review  # noqa: E402
from protoseg_fast.web.svg import PRINT  # noqa: E402
from report_folders import Sweep, write_sweep  # noqa: E402

TWO = Sweep(cases=14, labelled=9, targets=("kidney", "tumour & core"), layers=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fourteen cases, nine of them with truth, two targets."""
    return write_sweep(tmp_path_factory.mktemp("sweep"), TWO)


@pytest.fixture(scope="module")
def cohort(folder: Path) -> Cohort:
    return load_cohort(folder)


@pytest.fixture(scope="module")
def results(cohort: Cohort) -> list[TargetResult]:
    return analyse(cohort)


@pytest.fixture(scope="module")
def table(folder: Path) -> SegmentationAbilityMap:
    """The same tables, read by the class that wrote them."""
    return sum(SegmentationAbilityMap.load(path) for path in sorted(folder.glob("tables/*")))


@pytest.fixture(scope="module")
def html(folder: Path) -> str:
    return write_report(folder).read_text(encoding="utf-8")


# --- statistics -----------------------------------------------------------------------------------


def _plain_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; equal values share the mean of their places."""
    return np.array([(values < v).sum() + ((values == v).sum() + 1) / 2 for v in values])


@pytest.mark.parametrize("digits", [1, 12], ids=["ties", "no ties"])
def test_correlations_are_the_textbook_s(digits: int) -> None:
    rng = np.random.default_rng(digits)
    x = rng.random(40).round(digits)
    y = (x + 0.3 * rng.random(40)).round(digits)
    assert statistics.pearson(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1])
    ranked = np.corrcoef(_plain_ranks(x), _plain_ranks(y))[0, 1]
    assert statistics.spearman(x, y) == pytest.approx(ranked)
    found = statistics.agreement(np.append(x, np.nan), np.append(y, 1.0))
    assert found.pairs == 40
    assert found.mae == pytest.approx(sum(abs(b - a) for a, b in zip(x, y, strict=True)) / 40)
    assert found.bias == pytest.approx(y.mean() - x.mean())


def test_correlation_of_too_little_is_undefined() -> None:
    assert math.isnan(statistics.pearson(np.array([0.0, 1.0]), np.array([0.0, 1.0])))
    assert math.isnan(statistics.pearson(np.full(9, 0.1), np.arange(9.0)))
    assert statistics.agreement(np.array([np.nan]), np.array([1.0])).pairs == 0


def test_aurc_is_its_definition() -> None:
    rng = np.random.default_rng(3)
    confidence, risk = rng.random(30), rng.random(30)
    order = sorted(range(30), key=lambda case: -confidence[case])
    selective = [sum(risk[case] for case in order[:k]) / k for k in range(1, 31)]
    assert statistics.aurc(confidence, risk) == pytest.approx(sum(selective) / 30)
    # By hand: the better case first, then both; and the other way round.
    assert statistics.aurc(np.array([2.0, 1.0]), np.array([0.2, 0.6])) == pytest.approx(0.3)
    assert statistics.aurc(np.array([1.0, 2.0]), np.array([0.2, 0.6])) == pytest.approx(0.5)
    assert math.isnan(statistics.aurc(np.empty(0), np.empty(0)))


def test_aurc_of_ties_is_the_mean_over_their_orders() -> None:
    rng = np.random.default_rng(4)
    confidence, risk = rng.integers(0, 4, 25).astype(float), rng.random(25)
    tied = statistics.aurc(confidence, risk)
    shuffled = rng.permutation(25)
    assert statistics.aurc(confidence[shuffled], risk[shuffled]) == pytest.approx(tied)
    broken = [statistics.aurc(confidence + 1e-6 * rng.random(25), risk) for _ in range(800)]
    assert np.mean(broken) == pytest.approx(tied, abs=4 * np.std(broken) / math.sqrt(800))
    assert statistics.aurc(np.ones(25), risk) == pytest.approx(risk.mean())


def test_estimator_lies_between_the_perfect_and_the_worst() -> None:
    rng = np.random.default_rng(5)
    dice = rng.random(50)
    perfect = statistics.estimator(dice, dice)
    assert perfect.aurc == pytest.approx(perfect.best_aurc)
    assert perfect.agreement.spearman == pytest.approx(1)
    worst = statistics.estimator(-dice, dice)
    assert perfect.aurc < perfect.random_aurc < worst.aurc
    assert perfect.random_aurc == pytest.approx(1 - dice.mean())


def test_better_ranking_only_where_there_is_one() -> None:
    rng = np.random.default_rng(6)
    dice = rng.random(60)
    good, poor, noise = dice + 0.05 * rng.random(60), dice + rng.random(60), rng.random(60)
    difference, low, high = statistics.better_ranking(good, noise, dice)
    assert 0 < low < difference < high
    expected = statistics.spearman(good, dice) - statistics.spearman(noise, dice)
    assert difference == pytest.approx(expected)
    assert statistics.better_ranking(noise, good, dice)[2] < 0
    assert statistics.better_ranking(poor, poor, dice) == (0, 0, 0)
    assert all(map(math.isnan, statistics.better_ranking(good[:9], noise[:9], dice[:9])))
    assert all(map(math.isnan, statistics.better_ranking(good, np.ones(60), dice)))


# --- the cohort -----------------------------------------------------------------------------------


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


# --- pictures -------------------------------------------------------------------------------------


def _shown(pictures: Pictures) -> np.ndarray:
    """The grey image, as decoded from the page."""
    data = base64.b64decode(pictures.image.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SLA", "AIL"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_pictures_lie_as_radiologists_want_them(codes: str, axis: int) -> None:
    """Whatever the order and direction of the stored axes, the same view of the body."""
    nib = pytest.importorskip("nibabel")
    spacing = {"R": 1.0, "A": 2.0, "S": 3.0}
    size = {"R": 5, "A": 6, "S": 7}
    body = nib.Nifti1Image(
        np.arange(5 * 6 * 7, dtype=np.int16).reshape(5, 6, 7), np.diag([1.0, 2.0, 3.0, 1.0])
    )
    to = nib.orientations.axcodes2ornt(codes)
    stored = body.as_reoriented(
        nib.orientations.ornt_transform(nib.io_orientation(body.affine), to)
    )
    data = np.asarray(stored.dataobj).astype(np.uint8)
    plane = data.take(2, axis)
    preview = {
        "image": plane,
        "output": plane[None] > 0,
        "axis": np.array(axis),
        "index": np.array(2),
    }
    details = {
        "shape": list(data.shape),
        "spacing": [float(zoom) for zoom in stored.header.get_zooms()],
        "affine": stored.affine.tolist(),
    }
    pictures = draw(preview, 0, "liver", details)
    # The same slice of the body in RAS, seen from the feet, the front or the left.
    letter = {"L": "R", "P": "A", "I": "S"}.get(codes[axis], codes[axis])
    at = 2 if codes[axis] == letter else size[letter] - 3
    left = [name for name in "RAS" if name != letter]
    ras = np.asarray(body.dataobj).astype(np.uint8).take(at, "RAS".index(letter))
    np.testing.assert_array_equal(_shown(pictures), ras[::-1, ::-1].T)
    proportions = [size[name] * spacing[name] for name in left]
    assert pictures.width / pictures.height == pytest.approx(proportions[0] / proportions[1])
    assert pictures.where == f"slice 3 of {data.shape[axis]} along axis {axis + 1}"
    assert [tile.caption for tile in pictures.tiles] == ["Image", "Network's output"]


def test_pictures_without_an_affine_are_as_stored() -> None:
    image = np.arange(6, dtype=np.uint8).reshape(2, 3)
    stored = {"image": image, "output": image[None] > 2, "axis": np.array(-1), "index": np.array(0)}
    pictures = draw(stored, 0, "cell", {"shape": [2, 3], "spacing": None, "affine": None})
    np.testing.assert_array_equal(_shown(pictures), image)
    assert (pictures.width, pictures.height, pictures.where) == (3, 2, "")


def test_large_pictures_are_thinned_out() -> None:
    side = 3 * LONGEST
    stored = {"image": np.zeros((side, 5), np.uint8), "truth": np.ones((1, side, 5), bool)}
    pictures = draw(stored, 0, "liver", {})
    assert (pictures.rows, pictures.columns) == (LONGEST, 2)
    assert pictures.truth


# --- the page -------------------------------------------------------------------------------------

VARIANTS = {
    "plain": Sweep(),
    "no truth": Sweep(labelled=0),
    "one case": Sweep(cases=1, labelled=1),
    "one case without truth": Sweep(cases=1, labelled=0),
    "all undefined": Sweep(undefined=True),
    "no pictures": Sweep(previews=False),
    "no failures": Sweep(failures=0),
    "only failures": Sweep(cases=0, failures=3),
    "only layers": Sweep(units=0),
    "three targets": Sweep(targets=("a", "b", "<c>"), labelled=6),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_cohort_has_a_sound_page(tmp_path: Path, variant: str) -> None:
    sweep = VARIANTS[variant]
    write_sweep(tmp_path, sweep)
    html = write_report(tmp_path).read_text(encoding="utf-8")
    page = Page(html)
    assert [url[:60] for url in page.loads if not url.startswith(("#", "data:"))] == []
    assert re.findall(r"url\((?!#)[^)]*\)", html) == []
    assert "@import" not in html
    assert len(page.ids) == len(set(page.ids))
    used = {url[1:] for url in page.loads if url.startswith("#")}
    used |= set(re.findall(r"url\(#([^)]*)\)", html)) | set(re.findall(r'href="#([^"]+)"', html))
    assert used <= set(page.ids)
    assert page.undescribed == []
    text = " ".join(page.text).partition('"use strict"')[0]
    assert not re.search(r"\bnan\b|\binf\b|\bNone\b(?! of)|\{\{|\}\}", text.replace("NaN in 3", ""))
    assert html.count('class="chart"') == _charts_expected(sweep)
    assert ("failed" in page.ids) == (sweep.failures > 0)


def _charts_expected(sweep: Sweep) -> int:
    if sweep.cases == 0:
        return 0
    each = 1 + (sweep.units > 0)  # profile, histograms
    if sweep.labelled:
        each += 2 + (not sweep.undefined)  # quality, risk and coverage; agreement needs scores
    return each * len(sweep.targets)


def test_page_says_what_was_found(html: str, results: list[TargetResult], cohort: Cohort) -> None:
    text = " ".join(" ".join(Page(html).text).split())
    assert "How to read this" in text
    assert "14 cases scored, 9 of them with ground truth" in text
    assert "2 of them dead" in text
    for result in results:
        for estimate in (result.mean_sa, result.confidence):
            assert f"{estimate.agreement.spearman:+.2f}".replace("-", "−") in text
            assert f"{estimate.aurc:.3f}" in text
    for case in cohort.cases:
        assert case in text
    assert "The image <holds> NaN" in text  # escaped in the HTML, so it comes back as text
    assert "<holds>" not in html
    assert "model unet:build" in text


def test_colours_reach_the_contrast_that_people_need() -> None:
    """WCAG 2.1: 3 for graphics, 4.5 for text."""

    def luminance(colour: str) -> float:
        parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    def contrast(colour: str) -> float:
        return (luminance(PRINT.paper) + 0.05) / (luminance(colour) + 0.05)

    assert min(map(contrast, PRINT.series)) >= 3
    assert min(contrast(PRINT.ink), contrast(PRINT.muted)) >= 4.5


def test_verdict_on_the_estimates() -> None:
    rng = np.random.default_rng(8)
    dice = rng.random(40)
    good, poor = dice + 0.1 * rng.random(40), rng.random(40)

    def verdict(mean_sa: np.ndarray, confidence: np.ndarray) -> str:
        better = statistics.better_ranking(mean_sa, confidence, dice)
        judged = [statistics.estimator(x, dice) for x in (mean_sa, confidence)]
        nothing = statistics.agreement(np.empty(0), np.empty(0))
        return _verdict(
            TargetResult("x", "target", [], nothing, nothing, pd.DataFrame(), *judged, better)
        )

    assert "mean SA ranks cases better than Soft Dice Confidence" in verdict(good, poor)
    assert "Soft Dice Confidence ranks cases better than mean SA" in verdict(poor, good)
    assert "cannot be told apart" in verdict(good, good)
    assert "Neither" not in verdict(good, good) + verdict(poor, good)
    assert "Neither follows Dice well" in verdict(poor, poor)
    assert "cannot be said" in verdict(good, np.ones(40))


def test_page_is_the_same_every_time(folder: Path, html: str, tmp_path: Path) -> None:
    assert write_report(folder, tmp_path / "again.html").read_text(encoding="utf-8") == html


@pytest.mark.slow
def test_page_of_a_hundred_cases_is_small(tmp_path: Path) -> None:
    write_sweep(tmp_path, Sweep(cases=100, labelled=100, layers=40, units=16, side=320))
    assert write_report(tmp_path).stat().st_size < 15e6


def test_broken_pictures_are_left_out(tmp_path: Path) -> None:
    write_sweep(tmp_path, Sweep(cases=2, labelled=2))
    for path in tmp_path.glob("previews/*"):
        path.write_bytes(b"no zip file")
    assert "kept no pictures" in write_report(tmp_path).read_text()


def test_ranges_draw_runs_together() -> None:
    assert ranges([0, 3, 4, 5, 9]) == "0, 3–5, 9"
    assert ranges([7]) == "7"
    assert ranges([1, 2]) == "1–2"


# --- command line ---------------------------------------------------------------------------------


def test_command_writes_the_page_and_the_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sweep(tmp_path / "in", Sweep(layers=2, units=2))
    out = tmp_path / "out" / "page.html"
    assert cli.main(["report", str(tmp_path / "in"), "--out", str(out), "--figures"]) == 0
    assert f"Wrote {out}" in capsys.readouterr().out
    names = {path.name for path in (out.parent / "figures").iterdir()}
    figures = ("layer-profile", "unit-histograms", "agreement", "quality", "risk-coverage")
    assert names == {f"{f}-liver-0.{kind}" for f in figures for kind in ("png", "svg", "pdf")}
    heads = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    for path in (out.parent / "figures").iterdir():
        assert path.read_bytes().startswith(heads[path.suffix[1:]])
    drawn = (out.parent / "figures" / "quality-liver-0.svg").read_text()
    assert "#0072b2" in drawn
    assert "#000001" not in drawn  # a colour that only a page gives a meaning to
    assert list(out.parent.glob(".*")) == []


def test_command_without_a_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(tmp_path)]) == 1
    message = capsys.readouterr().err
    assert "holds no sweep" in message
    assert "Traceback" not in message


def test_page_that_cannot_be_written(tmp_path: Path) -> None:
    write_sweep(tmp_path, Sweep(cases=1))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ReportError, match=r"Cannot write to .*--out"):
        write_report(tmp_path, tmp_path / "file" / "page.html")


def test_missing_dependencies_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from protoseg_fast.report import command

    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: None)
    assert cli.main(["report", str(tmp_path)]) == 1
    assert "pip install 'protoseg_fast[report]'" in capsys.readouterr().err


# --- browser --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium; the test is skipped where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if path is None:
        pytest.skip("no Chromium on the PATH")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.mark.slow
@pytest.mark.parametrize("width", [380, 1200])
def test_page_in_a_browser(browser, folder: Path, html: str, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800}, offline=True)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto((folder / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    drawn = page.evaluate(
        "Array.from(document.querySelectorAll('svg.chart, .tile svg'),"
        " s => s.getBBox().width * s.getBoundingClientRect().height)"
    )
    assert len(drawn) == 2 * 5 + page.locator(".tile").count() > 10
    assert min(drawn) > 0

    head = page.locator("#cases thead th", has_text="Dice").first  # unknown for five cases
    column = head.evaluate("th => th.cellIndex")
    orders = []
    for direction in ("ascending", "descending"):
        head.locator("button").focus()
        page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == direction
        assert direction in page.locator("#said").text_content()
        cells = page.locator(f"#cases tbody tr > :nth-child({column + 1})").evaluate_all(
            "cells => cells.map(cell => cell.dataset.v)"
        )
        assert cells[TWO.labelled :] == [""] * (TWO.cases - TWO.labelled)
        orders.append([float(cell) for cell in cells[: TWO.labelled]])
    assert orders[0] == sorted(orders[0])
    assert orders[1] == orders[0][::-1]
    assert complaints == []
    page.close()


@pytest.mark.slow
def test_page_prints(browser, folder: Path, html: str, tmp_path: Path) -> None:
    page = browser.new_page()
    page.goto((folder / "report.html").as_uri())
    pdf = page.pdf(format="A4")
    pages = len(re.findall(rb"/Type\s*/Page\b", pdf))
    assert 3 <= pages <= 20
    page.close()
