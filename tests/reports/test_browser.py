"""The page of a report in Chromium: it fits, sorts and prints."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

for _name in ("matplotlib", "pandas", "pyarrow", "jinja2"):
    pytest.importorskip(_name)

from report_folders import TWO  # noqa: E402


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
