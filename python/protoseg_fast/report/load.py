"""Reads the folder of a sweep and adds up its tables, one case at a time.

A sweep of 10⁴ cases has 10⁸ rows, nearly all of them of units. Only sums over cases are needed of
those, so they are added up as the files are read; rows of layers as a whole are kept.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from protoseg_fast.network.layers import INPUT
from protoseg_fast.network.records import WHOLE_LAYER
from protoseg_fast.report.errors import ReportError

__all__ = ["Cohort", "Failure", "load_cohort"]

#: What is read of a table; the other columns stay on the disk.
READ = (
    *("layer", "call", "group", "target", "reference"),
    *("sa", "predicted", "feature_size", "channels"),
)
KEYS = ["layer", "call", "group", "target", "reference"]

#: Sums kept apart, of tables whose rows differ, until they are joined.
_BATCH = 32


@dataclass(frozen=True)
class Failure:
    """A case without a result: its name, why in a sentence, what kind, and the traceback."""

    case: str
    reason: str
    kind: str
    traceback: str


@dataclass(frozen=True)
class Cohort:
    """What a sweep found.

    Attributes:
        folder: where it was read.
        cases: names, in order.
        targets: names of the binary problems, in the order of the sweep.
        layers: one row per layer and call, in the order they ran: layer, call, label,
            feature_size, channels, image (whether it is the image itself).
        layer_scores: one row per case, layer, call, target and reference: sa of the whole layer;
            ``case`` and ``layer`` are indices of ``cases`` and of rows of ``layers``.
        units: one row per layer (index), group (int), target and reference: sa, the mean over
            cases with NaN skipped; scored, how many cases that holds; cases, how many have the
            unit; alive, whether its map was ever not empty.
        outputs: one row per case (index) and target: dice, confidence (Soft Dice Confidence),
            foreground (voxels of the output); NaN where unknown.
        labelled: (cases,) bool, whether a case has ground truth.
        details: what ``cases/*.json`` says, per case.
        previews: per case, the path of its pictures, or None.
        failures: the cases without a result.
        config, summary: what the sweep wrote about itself; empty if it did not.
    """

    folder: Path
    cases: list[str]
    targets: list[str]
    layers: pd.DataFrame
    layer_scores: pd.DataFrame
    units: pd.DataFrame
    outputs: pd.DataFrame
    labelled: NDArray[np.bool_]
    details: list[dict[str, Any]]
    previews: list[Path | None]
    failures: list[Failure]
    config: dict[str, Any]
    summary: dict[str, Any]


def load_cohort(folder: Path) -> Cohort:
    """Read the folder of a sweep.

    A file that cannot be read makes its case a failed one, with the reason.

    Raises:
        ReportError: if there is neither a table nor a failure.
    """
    paths = sorted((folder / "tables").glob("*.parquet"))
    failures = [_failure(path) for path in sorted((folder / "failures").glob("*.json"))]
    tables = _Tables()
    details: list[dict[str, Any]] = []
    previews: list[Path | None] = []
    for path in paths:
        try:
            about = _json(folder / "cases" / f"{path.stem}.json")
            tables.add(path)
        except (OSError, ValueError, pa.ArrowException) as error:
            reason = f"Its result cannot be read: {' '.join(str(error).split())}"
            failures.append(Failure(path.stem, reason, type(error).__name__, ""))
            continue
        details.append({"case": path.stem, **about})
        preview = folder / "previews" / f"{path.stem}.npz"
        previews.append(preview if preview.is_file() else None)
    if not details and not failures:
        raise ReportError(
            f"{folder} holds no sweep: there is no table in {folder / 'tables'}. Give the folder "
            "that was --out of protoseg-fast sweep."
        )
    rows, units = tables.layer_rows(), tables.unit_means()
    targets = tables.names["target"] or _targets_of(details)
    labelled = np.array([about.get("label") is not None for about in details], bool)
    return Cohort(
        folder=folder,
        cases=[str(about["case"]) for about in details],
        targets=targets,
        layers=tables.layers(),
        layer_scores=rows,
        units=units,
        outputs=_outputs(details, targets),
        labelled=labelled,
        details=details,
        previews=previews,
        failures=failures,
        config=_optional_json(folder / "config.json"),
        summary=_optional_json(folder / "summary.json"),
    )


@dataclass
class _Tables:
    """Adds up tables. Names are numbered in the order they come."""

    names: dict[str, list[Any]] = field(
        default_factory=lambda: {name: [] for name in ("layer", "target", "reference")}
    )
    shapes: dict[tuple[int, int], tuple[str, int]] = field(default_factory=dict)
    cases: int = 0
    rows: list[pd.DataFrame] = field(default_factory=list)
    partial: list[tuple[NDArray[np.int64], pd.DataFrame]] = field(default_factory=list)

    def add(self, path: Path) -> None:
        """Add the table of one case."""
        table = pq.read_table(path, columns=list(READ), memory_map=True)
        columns = {name: self._codes(name, table[name]) for name in self.names}
        columns["group"] = _groups(table["group"])
        for name in ("call", "sa", "predicted"):
            columns[name] = table[name].to_numpy()
        frame = pd.DataFrame(columns)
        whole = frame["group"].to_numpy() < 0
        self._see_shapes(table, frame)
        layer = frame[whole].drop(columns=["group", "predicted"])
        self.rows.append(layer.assign(case=self.cases))
        units = frame[~whole]
        known = units["sa"].notna()
        sums = {"total": units["sa"].fillna(0.0), "scored": known.astype(np.int64), "cases": 1}
        self._add_units(units[KEYS].assign(**sums, alive=units["predicted"] > 0))
        self.cases += 1

    def _add_units(self, units: pd.DataFrame) -> None:
        """Add to the sums of the same rows: in nearly every sweep all cases have the same."""
        keys = units[KEYS].to_numpy()
        for seen, sums in self.partial:
            if np.array_equal(seen, keys):
                for name in ("total", "scored", "cases"):
                    sums[name] += units[name].to_numpy()
                sums["alive"] |= units["alive"].to_numpy()
                return
        self.partial.append((keys, units.reset_index(drop=True)))
        if len(self.partial) >= _BATCH:
            sums = self._sums()
            self.partial = [(sums[KEYS].to_numpy(), sums)]

    def _sums(self) -> pd.DataFrame:
        return _added([sums for _, sums in self.partial])

    def layers(self) -> pd.DataFrame:
        """Return the layers in the order they ran; several calls of one lie beside each other."""
        order = sorted(self.shapes)
        names = self.names["layer"]
        return pd.DataFrame(
            {
                "layer": [names[layer] for layer, _ in order],
                "call": [call for _, call in order],
                "label": [names[n] if call == 0 else f"{names[n]} ({call})" for n, call in order],
                "feature_size": [self.shapes[key][0] for key in order],
                "channels": [self.shapes[key][1] for key in order],
                "image": [names[layer] == INPUT for layer, _ in order],
            }
        )

    def layer_rows(self) -> pd.DataFrame:
        """Return the rows of layers as a whole."""
        columns = ["case", "layer", "call", "target", "reference", "sa"]
        rows = pd.concat(self.rows) if self.rows else pd.DataFrame(columns=columns)
        return self._named(rows.reset_index(drop=True))[["case", *columns[1:]]].drop(columns="call")

    def unit_means(self) -> pd.DataFrame:
        """Return the means of units over cases."""
        empty = pd.DataFrame(columns=[*KEYS, "total", "scored", "cases", "alive"])
        units = self._sums() if self.partial else empty
        scored = units["scored"].to_numpy(float)
        with np.errstate(invalid="ignore"):
            units["sa"] = units["total"].to_numpy(float) / np.where(scored > 0, scored, np.nan)
        units["alive"] = units["alive"].astype(bool)
        return self._named(units.drop(columns="total")).drop(columns="call")

    def _named(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Codes of targets and references as names, layer and call as the index of `layers`."""
        index = {key: row for row, key in enumerate(sorted(self.shapes))}
        keys = zip(frame["layer"], frame["call"], strict=True)
        layer = np.fromiter((index[key] for key in keys), np.int64, len(frame))
        named = {
            name: pd.Categorical.from_codes(frame[name].to_numpy(np.int64), self.names[name])
            for name in ("target", "reference")
        }
        return frame.assign(layer=layer, **named)

    def _codes(self, name: str, column: pa.ChunkedArray) -> NDArray[np.int64]:
        """Number the names of a column, the ones seen before as before."""
        encoded = _dictionary(column)
        names = self.names[name]
        values = [str(value) for value in encoded.dictionary.to_pylist()]
        codes = encoded.indices.to_numpy(zero_copy_only=False)
        # Names are numbered as rows bring them, whatever the order in the file's dictionary.
        for code in pd.unique(codes):
            if values[code] not in names:
                names.append(values[code])
        lookup = [names.index(value) if value in names else -1 for value in values]
        return np.array(lookup, np.int64)[codes]

    def _see_shapes(self, table: pa.Table, frame: pd.DataFrame) -> None:
        first = ~frame.duplicated(["layer", "call"])
        rows = np.flatnonzero(first)
        sizes = table["feature_size"].take(rows).to_pylist()
        channels = table["channels"].take(rows).to_pylist()
        keys = zip(frame["layer"][first], frame["call"][first], strict=True)
        for key, size, count in zip(keys, sizes, channels, strict=True):
            self.shapes.setdefault((int(key[0]), int(key[1])), (str(size), int(count)))


def _added(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    grouped = pd.concat(parts).groupby(KEYS, sort=False, observed=True)
    return grouped.agg(
        total=("total", "sum"), scored=("scored", "sum"), cases=("cases", "sum"),
        alive=("alive", "max"),
    ).reset_index()  # fmt: skip


def _dictionary(column: pa.ChunkedArray) -> Any:
    array = column.combine_chunks()
    return array if isinstance(array, pa.DictionaryArray) else array.dictionary_encode()


def _groups(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return channels, and -1 for the layer as a whole."""
    encoded = _dictionary(column)
    values = [
        -1 if value == WHOLE_LAYER else int(value) for value in encoded.dictionary.to_pylist()
    ]
    return np.array(values, np.int64)[encoded.indices.to_numpy(zero_copy_only=False)]


def _outputs(details: Sequence[dict[str, Any]], targets: Sequence[str]) -> pd.DataFrame:
    rows = [
        (case, target, *_numbers(about.get("outputs", {}).get(target, {})))
        for case, about in enumerate(details)
        for target in targets
    ]
    columns = ["case", "target", "dice", "confidence", "foreground"]
    return pd.DataFrame(rows, columns=columns)


def _numbers(output: dict[str, Any]) -> Iterator[float]:
    for name in ("dice", "soft_dice_confidence", "foreground"):
        value = output.get(name)
        yield math.nan if value is None else float(value)


def _targets_of(details: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for about in details for name in about.get("outputs", {})))


def _failure(path: Path) -> Failure:
    try:
        told = _json(path)
    except (OSError, ValueError) as error:
        told = {"reason": f"What was recorded cannot be read: {error}"}
    texts = {name: str(told.get(name) or "") for name in ("case", "reason", "kind", "traceback")}
    return Failure(
        texts["case"] or path.stem,
        texts["reason"] or "No reason was recorded.",
        texts["kind"],
        texts["traceback"],
    )


def _json(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} must hold a JSON object, it holds {type(found).__name__}.")
    return found


def _optional_json(path: Path) -> dict[str, Any]:
    try:
        return _json(path)
    except (OSError, ValueError):
        return {}
