"""What `SegmentationAbilityMap` does with names of layers and with categories."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

import numpy as np

from protoseg_fast.network.records import WHOLE_LAYER, categorical

__all__ = ["LayerNames", "as_categories", "as_numbers", "layer_weight", "match_names", "union"]

#: Layers of a table: a name or a glob, a compiled pattern searched for, or several of these.
LayerNames: TypeAlias = "str | re.Pattern[str] | Sequence[str | re.Pattern[str]]"


def match_names(names: Sequence[str], wanted: LayerNames) -> list[str]:
    """Return the names that are wanted: by name or glob, by pattern, or by several of these.

    Raises:
        ValueError: if one matches nothing.
    """
    selectors = [wanted] if isinstance(wanted, str | re.Pattern) else wanted
    found = []
    for selector in selectors:
        if isinstance(selector, re.Pattern):
            matching = [name for name in names if selector.search(name)]
        else:
            matching = [name for name in names if name == selector or fnmatchcase(name, selector)]
        if not matching:
            raise ValueError(f"The table has no layer {selector!r}; it has {', '.join(names)}.")
        found += matching
    return found


def layer_weight(weights: Mapping[str, float], layer: str) -> float:
    """Return the weight of a layer's name, or of the first glob that matches it, or 1."""
    if layer in weights:
        return float(weights[layer])
    for selector, weight in weights.items():
        if fnmatchcase(layer, selector):
            return float(weight)
    return 1.0


def as_categories(pd: Any, column: Any) -> Any:
    """Return a column of names as a Categorical of ints and text, as in tables just made; it may
    have been text or numbers, as files and pandas.concat leave them.

    Raises:
        ValueError: if a name is missing, or a group is none.
    """
    if isinstance(column.dtype, pd.CategoricalDtype):
        if len(column):  # a selection of rows keeps the names of others
            column = column.cat.remove_unused_categories()
        codes, names = column.cat.codes.to_numpy(), column.cat.categories.tolist()
    else:
        codes, found = pd.factorize(column)
        names = found.tolist()
    if (codes < 0).any():
        raise ValueError(f"frame has rows without {column.name}.")
    if column.name == "group":
        return union(pd, [categorical(pd, codes, list(map(_group, names)))], in_order=True)
    return categorical(pd, codes, names if column.name == "case" else list(map(str, names)))


def as_numbers(column: Any) -> Any:
    """Return a column of numbers as NumPy has them: float64 for scores, else int64.

    Raises:
        ValueError: if a count is missing, or is no number.
    """
    if column.name == "sa":
        return column.to_numpy("float64", na_value=np.nan)
    if column.isna().any():
        raise ValueError(f"frame has rows without {column.name}.")
    return column.to_numpy("int64")


def _group(name: Any) -> Any:
    try:
        return name if name == WHOLE_LAYER else int(name)
    except ValueError:
        raise ValueError(f'frame has a group {name!r}: neither "layer" nor a number.') from None


def union(pd: Any, parts: Sequence[Any], *, in_order: bool) -> Any:
    """Join Categoricals, keeping the order of their names; groups in theirs: "layer", 0, 1, ..."""
    names = list(dict.fromkeys(name for part in parts for name in part.categories))
    if in_order:
        names.sort(key=lambda name: -1 if name == WHOLE_LAYER else name)
    lookup = {name: code for code, name in enumerate(names)}
    codes = [np.array([lookup[n] for n in p.categories], dtype=int)[p.codes] for p in parts]
    return categorical(pd, np.concatenate(codes), names)
