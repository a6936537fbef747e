"""The examples run, shortened, and print what they say."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

for _name in ("torch", "nilearn", "pandas", "rich"):
    pytest.importorskip(_name)

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.slow
def test_ablation(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    main = runpy.run_path(str(EXAMPLES / "ablation.py"))["main"]
    options = ["--seeds", "1", "--steps", "20", "--draws", "1"]
    main([*options, "--plot", str(tmp_path / "figure.png")])
    rows = re.findall(r"(\d+)% .*?(\d\.\d+) .*?(\d\.\d+) .*?(\d\.\d+) ", capsys.readouterr().out)
    assert [row[0] for row in rows] == ["0", "10", "20", "30", "50", "70"]
    assert len(set(rows[0][1:])) == 1, "nothing is off, and choices differ"
    assert (tmp_path / "figure.png").stat().st_size > 0
