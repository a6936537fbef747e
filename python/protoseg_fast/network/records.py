"""Counts of the scored layers, and the table made of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from protoseg_fast import _core
from protoseg_fast.counts import Counts, Prototypes, on_host
from protoseg_fast.guide import Groups, Guide, is_whole
from protoseg_fast.network.extras import require

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = [
    "COLUMNS",
    "OUTPUT",
    "TARGET",
    "WHOLE_LAYER",
    "Names",
    "Record",
    "arrow_of",
    "case_names",
    "categorical",
    "check_distinct",
    "columns_of",
    "fetched",
    "fitting",
    "frame_of",
    "score_layers",
]

COLUMNS = (
    "case",
    "layer",
    "call",
    "group",
    "target",
    "reference",
    "sa",
    "tp",
    "predicted",
    "actual",
    "voxels",
    "feature_size",
    "channels",
)

#: The group that stands for all channels of a layer together.
WHOLE_LAYER = "layer"

#: The references.
TARGET, OUTPUT = "target", "output"


@dataclass(frozen=True)
class Record:
    """One call of a layer, scored for one division into groups.

    Attributes:
        layer, call: which.
        whole: whether the one group is the layer as a whole.
        cases: of the N images.
        targets: names of the T targets.
        counts: by reference, (N, G, T).
        feature_size, channels: of the layer.
    """

    layer: str
    call: int
    whole: bool
    cases: Sequence[int | str]
    targets: Sequence[str]
    counts: dict[str, Counts]
    feature_size: tuple[int, ...]
    channels: int


def check_distinct(argument: str, names: Sequence[Any]) -> None:
    """Raise ValueError if two names of an argument are the same: their rows would be, too."""
    if len(set(names)) < len(names):
        raise ValueError(f"{argument} must all be different, got {list(names)}.")


def case_names(cases: Sequence[Any]) -> list[int | str]:
    """Return names of cases as Python's own text and ints, from any sequence, array or tensor.

    Raises:
        TypeError: for names of other types, and for one text in place of several.
        ValueError: if two are the same.
    """
    listed: Any = cases.tolist() if hasattr(cases, "tolist") else cases
    several = isinstance(listed, Iterable) and not isinstance(listed, str | bytes)
    names: list[Any] = list(listed) if several else [None]
    if not all(isinstance(name, str) or is_whole(name) for name in names):
        raise TypeError(f"cases must be a sequence of str or int, got {cases!r}.")
    check_distinct("cases", list(map(str, names)))  # as they are in files
    return [str.__str__(name) if isinstance(name, str) else int(name) for name in names]


def fitting(divisions: Sequence[Groups], channels: int) -> tuple[list[Groups], str | None]:
    """Return those that divide the channels, and, if some do not, why they are left out."""
    fit = [g for g in divisions if not isinstance(g, int) or channels % g == 0]
    unfit = [g for g in divisions if g not in fit]
    if not unfit:
        return fit, None
    return fit, f"has {channels} channels, not a multiple of groups={unfit[0]}"


def score_layers(
    guide: Guide,
    layers: Sequence[tuple[Any, Sequence[Groups], Prototypes | None]],
    options: dict[str, Any],
) -> list[list[dict[str, Counts]]]:
    """Score the features of each layer, in each of its divisions into groups, at prototypes of
    their own or given ones, against all the guide's references.
    """
    found = guide._sa_counts_of_layers(layers, **options)
    if not guide.has_target:
        return [[{OUTPUT: both.output} for both in layer] for layer in found]
    return [[{TARGET: both.target, OUTPUT: both.output} for both in layer] for layer in found]


def fetched(records: Sequence[Record]) -> list[Record]:
    """Return records with their counts in memory of the CPU; waits for a device, once."""
    flat = [counts for record in records for counts in record.counts.values()]
    if all(counts._kind.device == "cpu" for counts in flat):
        return list(records)
    here = iter(on_host(flat))
    return [replace(r, counts={name: next(here) for name in r.counts}) for r in records]


class Names(NamedTuple):
    """A column of names: of each row, the index of its name."""

    codes: NDArray[Any]
    names: Sequence[int | str]


def columns_of(records: Sequence[Record], empty: str) -> dict[str, NDArray[Any] | Names]:
    """Return the table of records, column by column of `COLUMNS`.

    Rows come record by record, reference by reference, in the order of (N, G, T). Names are looked
    up once per record: rows only hold numbers.
    """
    parts = [(record, name, counts._arrays) for record in fetched(records)
             for name, counts in record.counts.items()]  # fmt: skip
    n, g, t = np.array([counts["tp"].shape for *_, counts in parts], np.int64).reshape(-1, 3).T
    rows = n * g * t
    part = np.repeat(np.arange(len(parts)), rows)
    row = np.arange(len(part)) - np.repeat(np.cumsum(rows) - rows, rows)  # within its part
    group = row // t[part] % g[part]
    whole = np.array([record.whole for record, *_ in parts], bool)

    def numbers(values: Iterable[int]) -> NDArray[Any]:
        return np.array(list(values), np.int64)[part]

    def names(values: Iterable[Sequence[int | str]], index: NDArray[Any]) -> Names:
        """Names in the order they come: of each part's values, the one at `index`."""
        found: dict[int | str, int] = {}
        listed = list(values)
        codes = np.array([found.setdefault(x, len(found)) for one in listed for x in one], np.int64)
        first = np.cumsum([0, *map(len, listed)], dtype=np.int64)[:-1]
        return Names(codes[first[part] + index], list(found))

    def counted(name: str, dtype: Any = np.int64) -> NDArray[Any]:
        found = [counts[name].reshape(-1) for *_, counts in parts]
        return np.concatenate([np.empty(0, dtype), *found])

    tp, predicted, actual = counted("tp"), counted("predicted"), counted("actual")
    first_image = np.cumsum(n) - n
    zero = np.zeros_like(row)
    columns: dict[str, NDArray[Any] | Names] = {
        "case": names((record.cases for record, *_ in parts), row // (g * t)[part]),
        "layer": names(([record.layer] for record, *_ in parts), zero),
        "call": numbers(record.call for record, *_ in parts),
        "group": Names(
            np.where(whole[part], 0, group + 1),
            [WHOLE_LAYER, *range(int(g[~whole].max(initial=0)))],
        ),
        "target": names((record.targets for record, *_ in parts), row % t[part]),
        "reference": names(([name] for _, name, _ in parts), zero),
        "sa": _core.score("dice", tp, predicted, actual, counted("defined", bool), empty),
        "tp": tp,
        "predicted": predicted,
        "actual": actual,
        "voxels": counted("voxels")[first_image[part] + row // (g * t)[part]],
        "feature_size": names(
            (["x".join(map(str, record.feature_size))] for record, *_ in parts), zero
        ),
        "channels": numbers(record.channels for record, *_ in parts),
    }
    return {name: columns[name] for name in COLUMNS}


def frame_of(columns: dict[str, NDArray[Any] | Names]) -> pd.DataFrame:
    """Return columns as a DataFrame; names as categories."""
    pd = require("pandas", "a segmentation ability map")
    return pd.DataFrame(
        {
            name: categorical(pd, *values) if isinstance(values, Names) else values
            for name, values in columns.items()
        }
    )


def arrow_of(columns: dict[str, NDArray[Any] | Names]) -> pa.Table:
    """Return columns as a pyarrow Table; names as dictionaries of text, or of numbers if all cases
    have one. Types do not depend on how many names there are, so that files of cases go together.
    Undefined scores (NaN) are null, as from pandas: databases leave null out of an average.
    """
    pa = require("pyarrow", "to_arrow")
    arrays = {}
    for column, values in columns.items():
        if not isinstance(values, Names):
            arrays[column] = pa.array(values, from_pandas=True)
            continue
        numbered = column == "case" and all(isinstance(case, int) for case in values.names)
        names = values.names if numbered else [str(name) for name in values.names]
        arrays[column] = pa.DictionaryArray.from_arrays(
            values.codes.astype(np.int32), pa.array(names, pa.int64() if numbered else pa.string())
        )
    return pa.table(arrays)


def categorical(pd: Any, codes: NDArray[Any], names: Sequence[Any]) -> Any:
    """Return categories of Python's own types: int64 if they all are ints."""
    numbers = bool(names) and all(isinstance(name, int) for name in names)
    return pd.Categorical.from_codes(codes, pd.Index(names, dtype="int64" if numbers else object))
