"""The table of scores of a network: `SegmentationAbilityMap`. Needs pandas."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from protoseg_fast.counts import MeanSA, mean_sa
from protoseg_fast.network.extras import require
from protoseg_fast.network.layers import INPUT
from protoseg_fast.network.records import (
    COLUMNS,
    OUTPUT,
    TARGET,
    WHOLE_LAYER,
    Names,
    Record,
    arrow_of,
    categorical,
    columns_of,
    frame_of,
)
from protoseg_fast.network.tables import (
    LayerNames,
    as_categories,
    as_numbers,
    layer_weight,
    match_names,
    union,
)

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.table import Table

__all__ = ["Mapper", "SegmentationAbilityMap"]

#: (layer, unit, image, index of the target, call, mask) -> (N, *size) bool
Mapper: TypeAlias = Callable[[str, int | str, Any, int, int, Any], Any]

_CATEGORIES = ("case", "layer", "group", "target", "reference", "feature_size")


class SegmentationAbilityMap:
    """How well every layer and unit of a network segments, one row per score.

    The columns, in this order:

    ============ ==================================================================================
    case         the image: its name, or its number (int) in the order of the forward passes
    layer        dotted name of the module; "input" for the channels of the image
    call         0, or which call of a module that one forward pass calls several times
    group        "layer" for all channels together, else the channel (int), or the group of
                 channels where ``groups`` was a number
    target       name of the binary problem
    reference    "target": scored against the truth; "output": against the network's own output,
                 pred > 0.5, the estimate without ground truth
    sa           the SA score, Dice(map, reference); NaN where undefined
    tp           voxels in map and reference
    predicted    voxels in the map
    actual       voxels in the reference
    voxels       voxels that count
    feature_size spatial extents of the features, such as "32x32"
    channels     number of channels of the layer
    ============ ==================================================================================

    Made by `protoseg_fast.segmentation_ability_map` and by `protoseg_fast.trace`. Tables of
    different cases merge: ``a + b``, or ``sum(tables)``; numbered cases go on counting. Scores and
    mean SA: He et al. 2023, arXiv:2212.09206.

    Args:
        frame: a pandas DataFrame with these columns, such as `to_pandas` returns, or as it comes
            back from a file or from pandas.concat.

    Raises:
        ValueError: if columns or names are missing, or a group is none.
        ImportError: if pandas is missing.
    """

    def __init__(self, frame: pd.DataFrame, *, _mapper: Mapper | None = None) -> None:
        if missing := [name for name in COLUMNS if name not in frame.columns]:
            raise ValueError(f"frame must have the columns {', '.join(COLUMNS)}; {missing} lack.")
        pd = require("pandas", "a segmentation ability map")
        self._frame = frame[list(COLUMNS)].reset_index(drop=True)
        for name, column in self._frame.items():
            self._frame[name] = (
                as_categories(pd, column) if name in _CATEGORIES else as_numbers(column)
            )
        self._mapper = _mapper

    @functools.cached_property
    def _frame(self) -> pd.DataFrame:  # of a table made from records; costs more than the records
        return frame_of(self._columns)

    @functools.cached_property
    def _columns(self) -> dict[str, np.ndarray[Any, Any] | Names]:
        frame = self._frame
        return {
            name: Names(frame[name].cat.codes.to_numpy(), frame[name].cat.categories.tolist())
            if name in _CATEGORIES
            else frame[name].to_numpy()
            for name in COLUMNS
        }

    @classmethod
    def from_records(
        cls, records: Sequence[Record], *, empty: str = "nan", mapper: Mapper | None = None
    ) -> SegmentationAbilityMap:
        """Make the table of scored layers; ``empty`` as in `protoseg_fast.Counts.score`."""
        require("pandas", "a segmentation ability map")
        sam = cls.__new__(cls)
        sam._columns, sam._mapper = columns_of(records, empty), mapper
        return sam

    # --- the table ------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._columns["sa"])

    @property
    def cases(self) -> list[int | str]:
        """The images, in order."""
        return self._names("case")

    @property
    def layers(self) -> list[str]:
        """The layers, in the order they ran."""
        return self._names("layer")

    @property
    def targets(self) -> list[str]:
        """The names of the binary problems, in order."""
        return self._names("target")

    @property
    def references(self) -> list[str]:
        """What was scored against: "target", "output" or both."""
        return self._names("reference")

    def to_pandas(self) -> pd.DataFrame:
        """Return the table as a DataFrame; names are categories in the order above."""
        return self._frame.copy()

    def to_arrow(self) -> pa.Table:
        """Return the table as a pyarrow Table; ``group`` is text there: "layer", "0", "1", ..."""
        return arrow_of(self._columns)

    def save(self, path: str | Path) -> None:
        """Write the table to a Parquet file.

        Raises:
            ImportError: if pyarrow is missing.
        """
        require("pyarrow.parquet", "save").write_table(self.to_arrow(), path)

    @classmethod
    def load(cls, path: str | Path) -> SegmentationAbilityMap:
        """Read a table that `save` wrote. It has forgotten the network: no ``map``.

        Raises:
            ValueError: if the file has not these columns.
            ImportError: if pyarrow is missing.
        """
        require("pandas", "load")
        frame = require("pyarrow.parquet", "load").read_table(path).to_pandas()
        if missing := [name for name in COLUMNS if name not in frame.columns]:
            raise ValueError(f"{path} is no segmentation ability map: it lacks {missing}.")
        return cls(frame)

    def __add__(self, other: SegmentationAbilityMap) -> SegmentationAbilityMap:
        if not isinstance(other, SegmentationAbilityMap):
            return NotImplemented
        pd = require("pandas", "merging")
        mine, theirs = self._frame, other._renumbered(self.cases)
        names, others = (set(map(str, t["case"].cat.categories)) for t in (mine, theirs))
        if shared := names & others:
            raise ValueError(f"Tables merge case by case, but both have {sorted(shared)}.")
        columns = {}
        for name in COLUMNS:
            if name in _CATEGORIES:
                parts = [mine[name].array, theirs[name].array]
                columns[name] = union(pd, parts, in_order=name == "group")
            else:
                columns[name] = np.concatenate([mine[name].to_numpy(), theirs[name].to_numpy()])
        merged = SegmentationAbilityMap.__new__(SegmentationAbilityMap)  # parts were checked
        merged._frame, merged._mapper = pd.DataFrame(columns), self._mapper
        return merged

    def __radd__(self, other: object) -> SegmentationAbilityMap:
        return self if other == 0 else NotImplemented  # the start value of sum()

    # --- what it says ---------------------------------------------------------------------------

    def mean_sa(
        self,
        layers: LayerNames | None = None,
        *,
        weights: Mapping[str, float] | None = None,
        reference: str = OUTPUT,
        groups: str = "layer",
    ) -> MeanSA:
        """Average SA scores over layers, the paper's estimate of an output's quality.

        Args:
            layers: names, globs or patterns; None: all but "input".
            weights: of layers, by name or glob; its name's, or that of the first glob that
                matches, 1 where none does.
            reference: "output" needs no ground truth; "target" is the mean ability.
            groups: "layer" averages the layers' scores, "unit" those of all their groups.

        Returns:
            MeanSA(value, count), NumPy arrays (N, T) over ``cases`` and ``targets``: the mean and
            how many scores it holds. NaN is skipped; NaN where none is left.

        Raises:
            ValueError: for layers or a reference that the table does not have.
        """
        rows = self._rows(layers, reference, groups, image=layers is not None)
        rows = rows[["case", "target", "layer", "call", "group", "sa"]]
        index = ["layer", "call", "group"]
        wide = rows.pivot(index=index, columns=["case", "target"], values="sa")
        names = [(case, target) for case in self.cases for target in self.targets]
        wide = wide.reindex(columns=names)
        scores = wide.to_numpy().T.reshape(len(self.cases), len(self.targets), -1)
        if weights is None:
            return mean_sa(scores.transpose(0, 2, 1))
        weight = np.array([layer_weight(weights, key[0]) for key in wide.index])
        held = ~np.isnan(scores) & (weight > 0)
        with np.errstate(invalid="ignore"):
            value = np.where(held, scores * weight, 0).sum(2) / np.where(held, weight, 0).sum(2)
        return MeanSA(value, held.sum(2))

    def best(
        self,
        n: int = 10,
        *,
        layers: LayerNames | None = None,
        target: str | None = None,
        reference: str | None = None,
        groups: str = "unit",
    ) -> pd.DataFrame:
        """Return the n units ("layer": layers) with the highest SA score, mean over cases.

        Columns layer, call, group, target, sa, cases (how many scores the mean holds), best first.
        ``reference`` is "target" if there is one, else "output".
        """
        means = self._means(layers, reference, groups)
        if target is not None:
            self._known("target", target, self.targets)
            means = means[means["target"] == target]
        return means.nlargest(n, "sa").reset_index(drop=True)

    def dead(self, layers: LayerNames | None = None) -> pd.DataFrame:
        """Return the units that segment nothing in any case, for no target.

        Such a unit has equal prototypes: it is constant. Columns layer, call, group. Units
        whose scores are undefined throughout are not counted as dead.
        """
        rows = self._rows(layers, self.references[0], "unit", image=True)
        rows = rows.assign(alive=rows["predicted"] > 0, known=rows["sa"].notna())
        keys = ["layer", "call", "group"]
        seen = rows.groupby(keys, observed=True, sort=False)[["alive", "known"]].any()
        return seen[~seen["alive"] & seen["known"]].reset_index()[keys]

    def active_units(
        self,
        threshold: float = 0.5,
        *,
        layers: LayerNames | None = None,
        reference: str | None = None,
    ) -> pd.DataFrame:
        """Count the units of every layer whose mean SA score over cases is above ``threshold``.

        Columns layer, call, target, units, active, share.
        """
        means = self._means(layers, reference, "unit")
        means["active"] = means["sa"] > threshold
        grouped = means.groupby(["layer", "call", "target"], observed=True, sort=False)["active"]
        result = grouped.agg(units="size", active="sum").reset_index()
        return result.assign(share=result["active"] / result["units"])

    def summary(self, reference: str | None = None) -> pd.DataFrame:
        """Return one row per layer and target: layer, call, target, feature_size, channels, sa (of
        the layer, mean over cases), best_unit, best_unit_sa.
        """
        layer = self._means(None, reference, "layer").drop(columns=["group", "cases"])
        units = self._means(None, reference, "unit")
        units = units.sort_values("sa", ascending=False, kind="stable")
        keys = ["layer", "call", "target"]
        units = units.drop_duplicates(keys).rename(columns={"group": "best_unit"})
        units = units.rename(columns={"sa": "best_unit_sa"})[[*keys, "best_unit", "best_unit_sa"]]
        shapes = self._frame[[*keys, "feature_size", "channels"]].drop_duplicates(keys)
        merged = shapes.merge(layer, on=keys, how="left").merge(units, on=keys, how="left")
        return merged.reset_index(drop=True)

    def plot(
        self, *, target: str | None = None, reference: str | None = None
    ) -> tuple[Figure, Sequence[Axes]]:
        """Draw the profile of the layers, the histogram of each layer's units, and their heat map.

        Returns:
            (figure, axes) of matplotlib, three axes in this order.

        Raises:
            ImportError: if matplotlib is missing.
        """
        require("matplotlib", "plot")
        from protoseg_fast.network.plots import plot

        target = self.targets[0] if target is None else target
        self._known("target", target, self.targets)
        layer = self._means(None, reference, "layer")
        units = self._means(None, reference, "unit")
        return plot(layer[layer.target == target], units[units.target == target], target)

    def map(
        self,
        layer: str,
        unit: int | str,
        image: Any,
        *,
        target: str | None = None,
        call: int = 0,
        mask: Any = None,
    ) -> Any:
        """Return what a unit of a layer segments, at the size of the image.

        Runs the network on ``image`` as `protoseg_fast.segmentation_ability_map` did.

        Args:
            layer: a layer of the table.
            unit: a channel, or "layer" for all of them together.
            image: (N, C, *size), as the network takes it.
            target: which target's; None: the first.
            call: which call of the layer.
            mask: (N, 1, *size), the voxels whose features make the prototypes, or their weights;
                None: all.

        Returns:
            (N, *size) bool tensor, inside and outside the mask.

        Raises:
            ValueError: for a layer, unit or target that does not exist, or a table that was
                loaded, or made by `trace`, and knows no network.
        """
        if self._mapper is None:
            raise ValueError(
                "This table knows no network: only one that segmentation_ability_map has just "
                "made can draw maps. For others, use Guide.segment inside a hook."
            )
        self._known("layer", layer, self.layers)
        target = self.targets[0] if target is None else target
        self._known("target", target, self.targets)
        return self._mapper(layer, unit, image, self.targets.index(target), call, mask)

    # --- how it looks ---------------------------------------------------------------------------

    def __repr__(self) -> str:
        head = (
            f"SegmentationAbilityMap({len(self)} rows: {len(self.cases)} cases, "
            f"{len(self.layers)} layers, targets {self.targets}, references {self.references})"
        )
        return f"{head}\n{self.summary().to_string(index=False)}" if len(self) else head

    def _repr_html_(self) -> str:
        return str(self.summary().to_html(index=False, float_format="{:.3f}".format))

    def __rich__(self) -> Table:
        from protoseg_fast.network.plots import rich_table

        return rich_table(self.summary(), self._reference(None))

    # --- inside ---------------------------------------------------------------------------------

    def _names(self, column: str) -> list[Any]:
        values = self._columns[column]
        assert isinstance(values, Names)
        return list(values.names)

    def _reference(self, reference: str | None) -> str:
        if reference is None:
            return TARGET if TARGET in self.references else OUTPUT
        self._known("reference", reference, self.references)
        return reference

    @staticmethod
    def _known(what: str, name: object, names: Sequence[object]) -> None:
        if name not in names:
            raise ValueError(f"The table has no {what} {name!r}; it has {names}.")

    def _rows(
        self, layers: LayerNames | None, reference: str | None, groups: str, *, image: bool
    ) -> pd.DataFrame:
        frame = self._frame
        if groups not in ("layer", "unit"):
            raise ValueError(f'groups must be "layer" or "unit", got {groups!r}.')
        keep = frame["reference"] == self._reference(reference)
        keep &= (frame["group"] == WHOLE_LAYER) == (groups == "layer")
        if layers is not None:
            keep &= frame["layer"].isin(match_names(self.layers, layers))
        elif not image:
            keep &= frame["layer"] != INPUT
        return frame[keep]

    def _means(self, layers: LayerNames | None, reference: str | None, groups: str) -> pd.DataFrame:
        rows = self._rows(layers, reference, groups, image=True)
        keys = ["layer", "call", "group", "target"]
        grouped = rows.groupby(keys, observed=True, sort=False)["sa"]
        return grouped.agg(sa="mean", cases="count").reset_index()

    def _renumbered(self, taken: Sequence[int | str]) -> pd.DataFrame:
        """The table with its numbered cases going on after those that are taken."""
        numbers = [int(case) for case in taken if str(case).isdecimal()]  # also as text
        first = 1 + max(numbers, default=-1)
        lowest = min((case for case in self.cases if isinstance(case, int)), default=0)
        shift = max(first - lowest, 0)
        renamed = [case + shift if isinstance(case, int) else case for case in self.cases]
        frame = self._frame.copy()
        pd = require("pandas", "merging")
        frame["case"] = categorical(pd, frame["case"].cat.codes.to_numpy(), renamed)
        return frame
