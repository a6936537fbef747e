"""The page of a report, on folders of random scores."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

for _name in ("matplotlib", "pandas", "pyarrow", "jinja2"):
    pytest.importorskip(_name)

import pandas as pd  # noqa: E402

from pages import Page  # noqa: E402
from protoseg_fast.report import statistics, write_report  # noqa: E402
from protoseg_fast.report.analysis import TargetResult  # noqa: E402
from protoseg_fast.report.load import Cohort  # noqa: E402
from protoseg_fast.report.page import _verdict, ranges  # noqa: E402
from protoseg_fast.web.svg import PRINT  # noqa: E402
from report_folders import Sweep, write_sweep  # noqa: E402

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
