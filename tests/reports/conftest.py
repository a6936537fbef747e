"""A sweep's folder, and what the report makes of it. Imports of what may be missing wait: each test
file skips itself without.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from report_folders import TWO, write_sweep

if TYPE_CHECKING:
    from protoseg_fast.network.ability_map import SegmentationAbilityMap
    from protoseg_fast.report.analysis import TargetResult
    from protoseg_fast.report.load import Cohort


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fourteen cases, nine of them with truth, two targets."""
    return write_sweep(tmp_path_factory.mktemp("sweep"), TWO)


@pytest.fixture(scope="session")
def cohort(folder: Path) -> Cohort:
    from protoseg_fast.report.load import load_cohort

    return load_cohort(folder)


@pytest.fixture(scope="session")
def results(cohort: Cohort) -> list[TargetResult]:
    from protoseg_fast.report.analysis import analyse

    return analyse(cohort)


@pytest.fixture(scope="session")
def table(folder: Path) -> SegmentationAbilityMap:
    """The same tables, read by the class that wrote them."""
    from protoseg_fast.network.ability_map import SegmentationAbilityMap

    return sum(SegmentationAbilityMap.load(path) for path in sorted(folder.glob("tables/*")))


@pytest.fixture(scope="session")
def html(folder: Path) -> str:
    from protoseg_fast.report import write_report

    return write_report(folder).read_text(encoding="utf-8")
