"""benchmarks/gpu_check.py without a GPU: its logic on the runtime, and how it takes failures."""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu_check.py"
SECTIONS = (
    *("environment", "correctness", "reproducible", "values", "gradients", "graph", "streams"),
    *("libraries", "tracing", "bandwidth", "sweeps", "network", "together", "racecheck", "peers"),
    "strategies",
)


@pytest.fixture
def script() -> Iterator[Any]:
    """The script as a module."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        yield importlib.import_module("gpu_check")
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


@pytest.mark.slow
@pytest.mark.parametrize("section", SECTIONS)
def test_dry_run_of_a_section(script: Any, section: str) -> None:
    result = script.run_section(section, True, True)
    assert result["ok"] is True, json.dumps(result, indent=1)
    if section == "correctness":
        assert result["cases"] > 20
    assert all(isinstance(line, str) for line in script.describe(section, result))


@pytest.mark.slow
def test_dry_run_of_the_command(tmp_path: Path) -> None:
    record_path = tmp_path / "record.json"
    sections = ("environment", "values")
    command = [sys.executable, str(SCRIPT), "--dry-run", "--json", str(record_path)]
    done = subprocess.run(
        [*command, "--only", *sections], capture_output=True, text=True, check=False
    )
    record = json.loads(record_path.read_text())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all sections ok" in done.stdout
    assert record["dry_run"]
    assert set(record["sections"]) == set(sections)
    assert all(section["ok"] is True for section in record["sections"].values())


def test_dry_run_covers_every_section(script: Any) -> None:
    assert set(SECTIONS) | set(script.SANITIZERS) == set(script.SECTIONS)  # one stands for all


def test_a_section_that_takes_too_long_is_a_result(script: Any) -> None:
    arguments = argparse.Namespace(dry_run=True, small=True)
    result = script.isolated("correctness", arguments, limit=0.2)
    assert result["ok"] is False
    assert "took longer than" in result["problem"]
    assert "FAILED" in script.describe("correctness", result)[0]


def test_a_section_without_a_gpu_is_a_result(script: Any) -> None:
    arguments = argparse.Namespace(dry_run=False, small=True)
    result = script.isolated("values", arguments, limit=60)
    if result["ok"]:
        pytest.skip("there is a GPU")
    assert "PyTorch sees no CUDA device" in result["problem"]


def test_documentation_says_what_was_run(script: Any) -> None:
    document = importlib.import_module("gpu.document")
    found = document.records(script.RESULTS)
    assert document.cuda_resources.documented(document.SECTION) == document.what_was_run(found)


def test_records_become_tables() -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        document = importlib.import_module("gpu.document")
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    sections = {
        "environment": {"ok": True, "device": "a GPU"},
        "correctness": {"ok": False, "cases": 9, "failures": [{"case": "x", "error": "y"}]},
        "sweeps": {"ok": True, "rows": [{"share_of_copy": 0.5}, {"share_of_copy": 0.9}]},
        "memcheck": {"ok": None, "skipped": "compute-sanitizer is not installed"},
    }
    text = document.what_was_run([{"date": "2030-01-01", "file": "gpu.json", "sections": sections}])
    assert "On a GPU, 2030-01-01" in text
    assert "| correctness | **failed**, 9 cases, 1 wrong |" in text
    assert "| sweeps | passed, 50% to 90% of the copy bandwidth |" in text
    assert "| memcheck | not run: compute-sanitizer is not installed |" in text
    assert document.what_was_run([]) == document.NOTHING
