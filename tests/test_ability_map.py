"""The table: columns, files, merging, what it says, what it shows."""

from __future__ import annotations

import importlib
import re
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pd = pytest.importorskip("pandas")
pa = pytest.importorskip("pyarrow")
pytest.importorskip("pyarrow.parquet")
pytest.importorskip("matplotlib").use("agg")

import protoseg_fast as psf  # noqa: E402
from networks import Net  # noqa: E402
from protoseg_fast.network.ability_map import SegmentationAbilityMap  # noqa: E402

COLUMNS = [
    "case", "layer", "call", "group", "target", "reference", "sa", "tp", "predicted", "actual",
    "voxels", "feature_size", "channels",
]  # fmt: skip
LAYERS = ["input", "encoder.0.conv", "encoder.1.conv", "head"]
SIZE = (16, 16)


def make_table(seed: int = 0, *, cases: list[str] | None = None) -> SegmentationAbilityMap:
    """Two images, two targets, both references; encoder.1.conv is called twice."""
    torch.manual_seed(seed)
    model = Net().eval()
    with torch.no_grad():  # unit 1 of the first layer is dead
        model.encoder[0].conv.weight[1] = 0
    image = torch.rand(2, 1, *SIZE)
    pred = torch.rand(2, 2, *SIZE)
    guide = psf.Guide(pred, torch.rand(2, 2, *SIZE) < 0.4)
    layers = ["input", "convs"]
    with psf.trace(model, layers, guide, targets=["core", "whole"]) as tracer, torch.no_grad():
        tracer.cases = cases
        model(image)
    return tracer.result()


@pytest.fixture(scope="module")
def table() -> SegmentationAbilityMap:
    return make_table()


def test_columns(table) -> None:
    frame = table.to_pandas()
    assert list(frame.columns) == COLUMNS
    assert len(frame) == len(table) == 2 * 2 * 2 * sum(c + 1 for c in (1, 4, 4, 4, 1))
    assert (table.cases, table.layers) == ([0, 1], LAYERS)
    assert (table.targets, table.references) == (["core", "whole"], ["target", "output"])
    assert not frame.duplicated(COLUMNS[:6]).any()
    assert set(frame.call[frame.layer == "encoder.1.conv"]) == {0, 1}
    np.testing.assert_array_equal(frame.sa, 2 * frame.tp / (frame.predicted + frame.actual))
    frame.loc[:, "sa"] = 0
    assert table.to_pandas().sa.any(), "to_pandas lends the table itself"


def test_missing_columns() -> None:
    with pytest.raises(ValueError, match="voxels"):
        SegmentationAbilityMap(pd.DataFrame({"case": []}))


@pytest.mark.parametrize(
    "way", ["csv", "parquet", "concat", "object", "arrow", "selection", "nullable"]
)
def test_frames_from_anywhere(way: str, tmp_path) -> None:
    table = make_table()
    frame = table.to_pandas()
    if way == "csv":
        frame.to_csv(tmp_path / "scores.csv", index=False)
        frame = pd.read_csv(tmp_path / "scores.csv")
    elif way == "parquet":
        table.save(tmp_path / "scores.parquet")
        frame = pd.read_parquet(tmp_path / "scores.parquet")
    elif way == "concat":
        parts = [part.astype({"layer": object}) for _, part in frame.groupby("case")]
        frame = pd.concat(parts).sort_index()
    elif way == "object":
        frame = frame.astype(object).astype({"sa": float, "tp": int})
    elif way == "nullable":
        frame.to_csv(tmp_path / "scores.csv", index=False)
        frame = pd.read_csv(tmp_path / "scores.csv", dtype_backend="pyarrow")
    elif way == "arrow":
        frame = table.to_arrow().to_pandas()
    else:
        frame = pd.concat([frame, frame.assign(case="other", layer="other")]).iloc[: len(frame)]
    found = SegmentationAbilityMap(frame)
    assert found.cases == table.cases
    assert found.layers == table.layers
    assert found.to_arrow().schema == table.to_arrow().schema
    assert found.to_pandas().group.tolist() == table.to_pandas().group.tolist()
    np.testing.assert_array_equal(found.mean_sa().value, table.mean_sa().value)
    assert found.best(5).values.tolist() == table.best(5).values.tolist()
    assert (found + make_table()).cases == list(range(2 * len(table.cases)))


def test_cases_of_any_sequence() -> None:
    for numbers in (np.arange(2), torch.arange(2), range(2)):
        table = make_table(cases=numbers)
        assert table.cases == [0, 1]
        assert (table + table).cases == [0, 1, 2, 3]
    assert make_table(cases=np.array(["a", "b"])).cases == ["a", "b"]
    assert make_table(cases=("a", "b")).to_arrow()["case"].to_pylist()[0] == "a"


def test_frames_that_make_no_table() -> None:
    frame = make_table().to_pandas()
    with pytest.raises(ValueError, match="group 'all'"):
        SegmentationAbilityMap(frame.assign(group="all"))
    for column in ("layer", "tp"):
        with pytest.raises(ValueError, match=f"rows without {column}"):
            SegmentationAbilityMap(frame.assign(**{column: None}))
    value, count = SegmentationAbilityMap(frame.iloc[:0]).mean_sa()
    assert np.isnan(value).all()
    assert not count.any()


def test_arrow_types_do_not_depend_on_the_number_of_names() -> None:
    table = make_table(cases=["first", "second"])
    frame = table.to_pandas()
    frame["case"] = pd.Categorical([f"case {i}" for i in range(len(frame))])
    many = SegmentationAbilityMap(pd.concat([frame] * 4).astype(frame.dtypes)).to_arrow()
    assert many.schema == table.to_arrow().schema
    assert many.schema.field("group").type == pa.dictionary(pa.int32(), pa.string())


def test_undefined_scores_are_null_in_arrow() -> None:
    """Databases take NaN for a value: the average of a column would be NaN, too."""
    table = make_table()
    frame = table.to_pandas()
    frame.loc[[1, 5], "sa"] = np.nan
    held = SegmentationAbilityMap(frame).to_arrow()["sa"]
    assert [i for i, value in enumerate(held.to_pylist()) if value is None] == [1, 5]
    assert held.null_count == 2


@pytest.mark.parametrize("cases", [None, ["a", "b"]])
def test_parquet_brings_back_the_same(cases, tmp_path) -> None:
    table = make_table(cases=cases)
    table.save(tmp_path / "scores.parquet")
    found = SegmentationAbilityMap.load(tmp_path / "scores.parquet")
    pd.testing.assert_frame_equal(found.to_pandas(), table.to_pandas())
    plain = pa.parquet.read_table(tmp_path / "scores.parquet")
    assert plain.column_names == COLUMNS
    assert set(plain["group"].to_pylist()) == {"layer", "0", "1", "2", "3"}
    with pytest.raises(ValueError, match="knows no network"):
        found.map("head", 0, torch.rand(1, 1, *SIZE))


def test_files_of_something_else(tmp_path) -> None:
    pa.parquet.write_table(pa.table({"case": [1]}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="no segmentation ability map"):
        SegmentationAbilityMap.load(tmp_path / "other.parquet")


def test_empty_table(tmp_path) -> None:
    empty = SegmentationAbilityMap.from_records([])
    assert list(empty.to_pandas().columns) == COLUMNS
    assert "0 rows" in repr(empty)
    empty.save(tmp_path / "empty.parquet")
    assert len(SegmentationAbilityMap.load(tmp_path / "empty.parquet")) == 0
    assert len(empty + make_table()) == len(make_table())


def test_merging_cases(table, tmp_path) -> None:
    other, named = make_table(1), make_table(2, cases=["a", "b"])
    merged = table + other + named
    assert merged.cases == [0, 1, 2, 3, "a", "b"]
    assert sum([table, other, named]).cases == merged.cases
    frames = [table.to_pandas(), other.to_pandas(), named.to_pandas()]
    np.testing.assert_array_equal(merged.to_pandas().sa, np.concatenate([f.sa for f in frames]))
    assert merged.to_pandas().group.tolist() == [g for f in frames for g in f.group]
    merged.save(tmp_path / "mixed.parquet")  # case numbers become text beside names
    found = SegmentationAbilityMap.load(tmp_path / "mixed.parquet")
    assert found.cases == ["0", "1", "2", "3", "a", "b"]
    with pytest.raises(ValueError, match=r"both have \['a', 'b'\]"):
        merged + named
    with pytest.raises(TypeError):
        table + 3


def test_mean_sa(table) -> None:
    frame = table.to_pandas()
    rows = frame[(frame.reference == "output") & (frame.group == "layer")]
    by_hand = rows[rows.layer != "input"].groupby(["case", "target"], observed=True).sa.mean()
    value, count = table.mean_sa()
    assert value.shape == count.shape == (2, 2)
    np.testing.assert_allclose(value.ravel(), by_hand)
    assert (count == 4).all()
    value, count = table.mean_sa(layers="encoder.*", reference="target", groups="unit")
    assert (count == 12).all()
    rows = frame[(frame.reference == "target") & (frame.group != "layer")]
    rows = rows[rows.layer.str.startswith("encoder")]
    np.testing.assert_allclose(
        value.ravel(), rows.groupby(["case", "target"], observed=True).sa.mean()
    )
    heavy = table.mean_sa(layers=["head", "encoder.0.conv"], weights={"head": 3}).value
    head, first = (table.mean_sa(layers=n).value for n in ("head", "encoder.0.conv"))
    np.testing.assert_allclose(heavy, (3 * head + first) / 4)
    nothing = table.mean_sa(weights={"*": 0})
    assert np.isnan(nothing.value).all()
    assert not nothing.count.any()
    with pytest.raises(ValueError, match=r"no layer 'decoder\.\*'"):
        table.mean_sa(layers="decoder.*")
    with pytest.raises(ValueError, match="no reference"):
        table.mean_sa(reference="truth")


def test_best(table) -> None:
    best = table.best(5)
    assert list(best.columns) == ["layer", "call", "group", "target", "sa", "cases"]
    assert len(best) == 5
    assert best.sa.is_monotonic_decreasing
    frame = table.to_pandas()
    units = frame[(frame.reference == "target") & (frame.group != "layer")]
    means = units.groupby(["layer", "call", "group", "target"], observed=True).sa.mean()
    assert best.sa[0] == means.max()
    layers = table.best(100, target="core", groups="layer", layers=re.compile("encoder"))
    assert set(layers.group) == {"layer"}
    assert len(layers) == 3
    with pytest.raises(ValueError, match="no target 'liver'"):
        table.best(target="liver")


def test_dead_and_active_units(table) -> None:
    assert table.dead().values.tolist() == [["encoder.0.conv", 0, 1]]
    active = table.active_units(0.3)
    assert list(active.columns) == ["layer", "call", "target", "units", "active", "share"]
    first = active[(active.layer == "encoder.0.conv") & (active.target == "core")]
    frame = table.to_pandas()
    rows = frame[(frame.layer == "encoder.0.conv") & (frame.target == "core")]
    rows = rows[(rows.reference == "target") & (rows.group != "layer")]
    assert first.units.item() == 4
    means = rows.groupby("group", observed=True).sa.mean()
    assert first.active.item() == (means > 0.3).sum()
    assert (table.active_units(-1).share == 1).all()


def test_undefined_units_are_not_dead() -> None:
    image = torch.rand(1, 1, *SIZE)
    nothing_predicted = psf.Guide(torch.zeros(1, 1, *SIZE), image > 0.5)
    with psf.trace(Net().eval(), guide=nothing_predicted) as tracer:
        tracer._hooks.model(image)
    table = tracer.result()
    assert table.to_pandas().sa.isna().all()
    assert table.dead().empty
    assert (table.mean_sa().count == 0).all()


def test_plot(table) -> None:
    figure, axes = table.plot(target="whole")
    assert [type(axis).__name__ for axis in axes] == ["Axes"] * 3
    labels = [label.get_text() for label in axes[0].get_yticklabels()]
    assert labels == [*LAYERS[:3], "encoder.1.conv (1)", "head"]
    figure.canvas.draw()


def test_summary_and_how_it_looks(table) -> None:
    summary = table.summary()
    assert len(summary) == 5 * 2
    row = summary[(summary.layer == "head") & (summary.target == "core")].iloc[0]
    assert (row.feature_size, row.channels, row.best_unit) == ("8x8", 1, 0)
    assert row.sa == row.best_unit_sa
    assert "2 cases, 4 layers" in repr(table)
    assert table._repr_html_().count("<tr") == 1 + len(summary)
    console = importlib.import_module("rich.console").Console(width=120, record=True)
    with console.capture() as capture:
        console.print(table)
    assert "encoder.1.conv" in capture.get()


def test_missing_libraries_are_named(table, monkeypatch, tmp_path) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"to_arrow needs pyarrow; .*\[network\]"):
        table.to_arrow()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="plot needs matplotlib"):
        table.plot()
