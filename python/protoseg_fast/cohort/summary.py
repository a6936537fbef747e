"""What there is below a folder of results: `status`, ``summary.json``, the merged table."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from protoseg_fast.cohort.config import SweepError
from protoseg_fast.cohort.store import Store, write_whole
from protoseg_fast.network.extras import require
from protoseg_fast.network.layers import INPUT
from protoseg_fast.network.records import WHOLE_LAYER
from protoseg_fast.web.files import replacing

__all__ = ["Status", "merge", "status", "write_summary"]


@dataclass(frozen=True)
class Status:
    """Which cases of the manifest are done, and which parts ran.

    Attributes:
        done, missing, failed: names of cases; failed ones with the reason.
        num_parts: of the last run.
        parts: for each part, (cases, done, failed, whether it was ever started).
    """

    done: list[str]
    missing: list[str]
    failed: dict[str, str]
    num_parts: int
    parts: list[tuple[int, int, int, bool]]


def status(out: str | Path) -> Status:
    """Look at a folder of results.

    Raises:
        SweepError: if it is none.
    """
    store = Store(out)
    names = [entry["case"] for entry in store.manifest()]
    if not names:
        raise SweepError(f"{out} holds no sweep: it has no manifest.json with cases.")
    tables, failures = store.names("tables"), store.names("failures")
    failed = {
        name: str(store.read(f"failures/{name}.json")["reason"])
        for name in names
        if name in failures and name not in tables
    }
    logs = store.logs()
    started = {(int(k.split("-")[1]), int(k.split("-")[3])) for k, v in logs.items() if v}
    latest = max(logs, key=lambda k: max((e["time"] for e in logs[k]), default=0), default=None)
    num_parts = 1 if latest is None else int(latest.split("-")[3])
    parts = []
    for part in range(num_parts):
        mine = names[part::num_parts]
        counts = (len(mine), sum(n in tables for n in mine), sum(n in failed for n in mine))
        parts.append((*counts, (part, num_parts) in started))
    done = [name for name in names if name in tables]
    missing = [name for name in names if name not in tables and name not in failed]
    return Status(done, missing, failed, num_parts, parts)


def write_summary(store: Store) -> dict[str, Any]:
    """Write ``summary.json``, in nnU-Net's habit: metric_per_case, mean, foreground_mean.

    Metrics of a case and target: Dice, SoftDiceConfidence, MeanSA (over layers, against the truth)
    and MeanSAOutput (against the output); null where undefined. Means skip what is undefined.
    """
    now = status(store.out)
    cases = []
    for name in now.done:
        info = store.read(f"cases/{name}.json")
        scores = _mean_sa(store.path("tables", name))
        metrics = {
            target: {
                "Dice": output["dice"],
                "SoftDiceConfidence": output["soft_dice_confidence"],
                "MeanSA": scores.get((target, "target")),
                "MeanSAOutput": scores.get((target, "output")),
            }
            for target, output in info["outputs"].items()
        }
        files = {"prediction_file": None, "reference_file": info["label"]}
        cases.append({"case": name, "image_file": info["image"], **files, "metrics": metrics})
    means = _means(cases)
    summary = {
        "cases": {"done": len(now.done), "missing": len(now.missing), "failed": len(now.failed)},
        "failures": now.failed,
        "foreground_mean": _mean_of(list(means.values())),
        "mean": means,
        "metric_per_case": cases,
    }
    write_whole(store.out / "summary.json", (json.dumps(summary, indent=1) + "\n").encode())
    return summary


def merge(out: str | Path, to: str | Path | None = None) -> Path:
    """Join the tables of all cases, in the order of names, a case at a time.

    The same cases give the same bytes, however many parts, processes and resumes made them.

    Args:
        out: folder of results.
        to: a .parquet or .csv file, not below ``out``; None: ``out`` with .parquet appended.

    Raises:
        SweepError: if there is nothing to merge, or ``to`` is no such file or cannot be written.
    """
    out = Path(out)
    path = _beside(out) if to is None else Path(to)
    if path.suffix not in (".parquet", ".csv"):
        raise SweepError(f"The merged table must be a .parquet or .csv file, got {path}.")
    if path.suffix == ".parquet" and out.resolve() in path.resolve().parents:
        raise SweepError(
            f"{path} lies below {out}, where .parquet files are single cases; write it elsewhere."
        )
    now, store = status(out), Store(out)
    if not now.done:
        raise SweepError(f"{out} has no case that is done.")
    tables = (_table(store.path("tables", name)) for name in now.done)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            _write(tables, temporary, csv=path.suffix == ".csv")
    except OSError as error:
        raise SweepError(f"Cannot write to {path}: {error.strerror or error}.") from error
    write_summary(store)
    return path


def _beside(out: Path) -> Path:
    """The folder with .parquet appended; "." and ".." have to be resolved to have a name."""
    named = out.resolve() if out.name in ("", "..") else out
    return named.with_name(f"{named.name}.parquet")


def _write(tables: Iterator[Any], path: Path, *, csv: bool) -> None:
    first = next(tables)
    if csv:
        writer: Any = require("pyarrow.csv", "merge").CSVWriter(path, first.schema)
    else:
        writer = require("pyarrow.parquet", "merge").ParquetWriter(path, first.schema)
    with writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table.cast(first.schema))


def _table(path: Path) -> Any:
    """A case's table with plain text for names, the same schema for every case."""
    pa = require("pyarrow", "merge")
    try:
        table = require("pyarrow.parquet", "merge").read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise SweepError(
            f"Cannot read {path}, which this package did not write: {error}. Remove it, and run "
            "the sweep again."
        ) from error
    fields = [
        pa.field(f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type)
        for f in table.schema
    ]
    return table.cast(pa.schema(fields)).replace_schema_metadata(None)


def _mean_sa(path: Path) -> dict[tuple[str, str], float | None]:
    """Mean over the layers' scores, the image's own channels excluded, by target and reference."""
    columns = ["layer", "group", "target", "reference", "sa"]
    frame = require("pyarrow.parquet", "summary").read_table(path, columns=columns).to_pandas()
    rows = frame[(frame["group"] == WHOLE_LAYER) & (frame["layer"] != INPUT)]
    grouped = rows.groupby(["target", "reference"], observed=True)["sa"].mean()
    return {key: None if np.isnan(value) else float(value) for key, value in grouped.items()}


def _means(cases: Sequence[dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    targets = dict.fromkeys(target for case in cases for target in case["metrics"])
    return {
        target: _mean_of([c["metrics"][target] for c in cases if target in c["metrics"]])
        for target in targets
    }


def _mean_of(rows: Sequence[dict[str, float | None]]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [value for row in rows if (value := row.get(name)) is not None]
        found[name] = None
        with contextlib.suppress(ZeroDivisionError):
            found[name] = sum(values) / len(values)
    return found
