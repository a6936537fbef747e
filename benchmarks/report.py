"""Records and tables: JSON, the terminal, and Markdown to paste into the README."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contenders import BATCHED, EXPERT, LOOP, OURS, READ
from measure import Result, Row, from_json, to_json
from network import FORWARD, NETWORK_NAME
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from workloads import HEADLINE

import protoseg_fast as psf

SCHEMA = 1

#: A limit whose quartiles lie this far apart was measured on a busy machine.
BUSY = 0.5


@dataclass
class Record:
    """All that a run found: the machine, its two roofs, and the result.

    Attributes:
        machine: what the figures were measured on.
        roofs: ``read_bytes_s`` and ``operations_s``, measured in the run.
        result: rows and skipped contenders.
    """

    machine: dict[str, Any]
    roofs: dict[str, float] = field(default_factory=dict)
    result: Result = field(default_factory=Result)

    def save(self, path: Path) -> None:
        """Write as JSON."""
        head = {"schema": SCHEMA, "machine": self.machine, "roofs": self.roofs}
        path.write_text(json.dumps(head | to_json(self.result), indent=1) + "\n")

    @staticmethod
    def load(path: Path) -> Record:
        """Read what `save` wrote.

        Raises:
            ValueError: the file is not such a record.
        """
        try:
            content = json.loads(path.read_text())
            if content["schema"] != SCHEMA:
                raise ValueError(f"schema {content['schema']}, expected {SCHEMA}")
            return Record(content["machine"], content["roofs"], from_json(content))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is no record of this benchmark: {error}") from error


def machine(device: str, threads: int, mode: str) -> dict[str, Any]:
    """What the figures are measured on."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = (line for line in cpuinfo.read_text().splitlines() if "model name" in line)
        name = next(models, name).partition(":")[2].strip() or name
    if torch.device(device).type == "cuda":
        name = f"{torch.cuda.get_device_name(device)}, host {name}"
    return {
        "date": time.strftime("%Y-%m-%d"),
        "mode": mode,
        "device": device,
        "name": name,
        "threads": threads,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "protoseg_fast": psf.build_config(),
    }


def seconds(value: float | None) -> str:
    """A time with three digits and a unit."""
    if value is None:
        return ""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-6:.3g} µs"


def megabytes(value: float | None) -> str:
    """Memory in MB, one digit after the point."""
    return "" if value is None else f"{value / 1e6:,.1f} MB"


def ratio(value: float | None) -> str:
    """A ratio with three digits."""
    if value is None:
        return ""
    return f"{value:,.0f} x" if value >= 100 else f"{value:.3g} x"


def percent(value: float | None) -> str:
    """A share in percent."""
    return "" if value is None else f"{100 * value:.3g} %"


def _timed(row: Row) -> str:
    return "" if row.timed == row.groups else f"extrapolated from {row.timed} of {row.groups}"


#: Heading and cell of every column.
COLUMNS: list[tuple[str, Callable[[Row], str]]] = [
    ("contender", lambda row: row.contender),
    ("median", lambda row: seconds(row.median_s)),
    ("spread", lambda row: percent(row.spread)),
    ("GB/s", lambda row: "" if row.gb_per_s is None else f"{row.gb_per_s:.3g}"),
    ("of read", lambda row: percent(row.share_of_read)),
    ("vs limit", lambda row: ratio(row.times_limit)),
    ("vs protoseg_fast", lambda row: ratio(row.times_ours)),
    ("in cache", lambda row: seconds(row.warm_s)),
    ("peak extra", lambda row: megabytes(row.peak_bytes)),
    ("timed", _timed),
]


def _shown(rows: list[Row]) -> list[tuple[str, Callable[[Row], str]]]:
    """The columns that say something."""
    return [(head, cell) for head, cell in COLUMNS if any(cell(row) for row in rows)]


def print_workload(console: Console, name: str, result: Result) -> None:
    """One table, and under it who was skipped and what was tuned."""
    rows = [row for row in result.rows if row.workload == name]
    table = Table(title=name, title_justify="left")
    columns = _shown(rows)
    for head, _ in columns:
        text = head in ("contender", "timed")
        table.add_column(head, justify="left" if text else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(cell(row) for _, cell in columns))
    console.print(table)
    reads = [row for row in rows if row.contender in (READ, FORWARD) and row.spread > BUSY]
    notes = [
        f"{row.contender} varies by {percent(row.spread)}: the machine is busy with something "
        "else, and these figures mean little"
        for row in reads
    ]
    notes += [f"{row.contender}: {row.note}" for row in rows if row.note]
    notes += [f"{who} skipped: {why}" for where, who, why in result.skipped if where == name]
    for note in notes:
        console.print(f"  {escape(note)}", style="dim", highlight=False)


def print_curve(console: Console, curve: str, result: Result) -> None:
    """One table per curve: a row per point, a column per contender."""
    rows = [row for row in result.rows if row.curve == curve]
    names = list(dict.fromkeys(row.contender for row in rows))
    table = Table(title=f"medians by {curve}", title_justify="left")
    table.add_column(curve, justify="right")
    for name in names:
        table.add_column(name, justify="right")
    for workload in dict.fromkeys(row.workload for row in rows):
        found = [result.find(workload, name) for name in names]
        x = next(row.x for row in found if row)
        table.add_row(str(x), *(seconds(row.median_s) if row else "" for row in found))
    console.print(table)


def print_record(console: Console, record: Record) -> None:
    """Everything, in the order it was measured."""
    rows = record.result.rows
    for name in dict.fromkeys(row.workload for row in rows if not row.curve):
        print_workload(console, name, record.result)
    for curve in dict.fromkeys(row.curve for row in rows if row.curve):
        print_curve(console, curve, record.result)


def _markdown_table(head: list[str], rows: list[list[str]]) -> str:
    align = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, align, *rows])


def markdown(record: Record) -> str:
    """The tables of the README, ready to paste: a summary, then every headline workload."""
    name = record.machine["name"]
    parts = [
        f"{name}, {record.machine['threads']} threads, torch {record.machine['torch']}, "
        f"{record.machine['date']}; plain read {record.roofs.get('read_bytes_s', 0) / 1e9:.3g} "
        "GB/s.",
        summary(record.result),
    ]
    for workload in dict.fromkeys(row.workload for row in record.result.rows if not row.curve):
        rows = [row for row in record.result.rows if row.workload == workload]
        columns = _shown(rows)
        body = [[cell(row) for _, cell in columns] for row in rows]
        parts.append(f"**{workload}**\n\n{_markdown_table([head for head, _ in columns], body)}")
    return "\n\n".join(parts)


def summary(result: Result) -> str:
    """One line per headline workload: protoseg_fast against the limit and against the peers."""
    body = []
    for name in [workload.name for workload in HEADLINE] + [NETWORK_NAME]:
        ours = result.find(name, OURS)
        if ours is None:
            continue
        limit = percent(ours.times_limit) if name == NETWORK_NAME else ratio(ours.times_limit)
        limit += f" of the {FORWARD}" if name == NETWORK_NAME else ""
        peers = [result.find(name, peer) for peer in (LOOP, BATCHED)]
        experts = [row for row in result.rows if row.workload == name and "expert" in row.contender]
        best = min((row.times_ours for row in experts if row.times_ours), default=None)
        body.append(
            [
                name,
                seconds(ours.median_s),
                limit,
                *(ratio(row.times_ours) if row else "" for row in peers),
                ratio(best),
            ]
        )
    head = ["work", OURS, f"vs {READ}", f"{LOOP}", f"{BATCHED}", f"best of {EXPERT}"]
    return _markdown_table(head, body)
