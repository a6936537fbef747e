"""The part of docs/gpu.md that says what has been run on a GPU, from the records present."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cuda_resources

SECTION = "gpu_runs"
NOTHING = (
    "**Nothing has been run on a GPU.** There is no record of a run under `benchmarks/results/`: "
    "what is known of correctness comes from the host, and nothing is known of speed."
)


def records(folder: Path) -> list[dict[str, Any]]:
    """The records of runs on a GPU, oldest first; dry runs are none."""
    found = [
        json.loads(path.read_text()) | {"file": path.name} for path in folder.glob("gpu-*.json")
    ]
    return sorted((r for r in found if not r["dry_run"]), key=lambda r: (r["date"], r["file"]))


def what_was_run(found: list[dict[str, Any]]) -> str:
    """Markdown: one table per record, with every section and what became of it."""
    if not found:
        return NOTHING
    parts = []
    for record in found:
        sections = record["sections"]
        device = sections.get("environment", {}).get("device", "an unknown device")
        lines = [f"On {device}, {record['date']} (`{record['file']}`):", ""]
        lines += ["| section | result |", "| --- | --- |"]
        lines += [f"| {name} | {_outcome(result)} |" for name, result in sections.items()]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _outcome(result: dict[str, Any]) -> str:
    if result.get("ok") is None:
        return f"not run: {result.get('skipped', 'unknown')}"
    state = "passed" if result["ok"] else "**failed**"
    if "cases" in result:
        state += f", {result['cases']} cases, {len(result['failures'])} wrong"
    if "share" in result:
        state += f": {result['scores']} scores cost {result['share']:.1%} of the forward pass"
    shares = [row["share_of_copy"] for row in result.get("rows", []) if "share_of_copy" in row]
    if shares:
        state += f", {min(shares):.0%} to {max(shares):.0%} of the copy bandwidth"
    return state


def update(folder: Path) -> None:
    """Write the section."""
    cuda_resources.write(what_was_run(records(folder)), SECTION)
