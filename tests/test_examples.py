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


@pytest.mark.slow
def test_training_with_other_settings_is_another(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = runpy.run_path(str(EXAMPLES / "train_with_sa.py"))["main"]

    def run(seeds: str, steps: str, weight: str) -> tuple[list[str], str]:
        options = ["--out", str(tmp_path), "--seeds", *seeds, "--steps", steps, "--weight", weight]
        monkeypatch.setattr("sys.argv", ["train_with_sa.py", *options])
        main()
        printed = capsys.readouterr().out
        return re.findall(r"(seed \d, .*): trained", printed), re.sub(
            r"(?m)^seed .*\n", "", printed
        )

    both = ["seed 0, plain", "seed 0, with sa_loss"]
    trained, first = run("0", "2", "0.1")
    assert trained == both
    trained, again = run("0", "2", "0.1")
    assert (trained, again) == ([], first), "what is there is reported again"
    trained, heavier = run("0", "2", "3")
    assert trained == both[1:], "the weight is not the other arm's"
    assert heavier != first
    assert run("0", "3", "0.1")[0] == both
    assert run("0", "2", "0.1") == ([], first), "other settings do not mix with these"

    (tmp_path / "scores.csv").write_text("arm,seed,layer,target,score,seconds\n")
    with pytest.raises(SystemExit, match="steps and weight"):
        run("0", "2", "0.1")
