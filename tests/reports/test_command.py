"""`protoseg-fast report`: files, messages, exit status."""

from __future__ import annotations

from pathlib import Path

import pytest

for _name in ("matplotlib", "pandas", "pyarrow", "jinja2"):
    pytest.importorskip(_name)

from protoseg_fast import cli  # noqa: E402
from protoseg_fast.report import ReportError, write_report  # noqa: E402
from report_folders import Sweep, write_sweep  # noqa: E402


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
