"""Windows: MONAI's geometry, every voxel in one of them, and scores equal to the untiled ones."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pd = pytest.importorskip("pandas")

from torch import nn  # noqa: E402

import protoseg_fast as psf  # noqa: E402
from networks import all_hooks  # noqa: E402
from protoseg_fast import segmentation_ability_map as sam  # noqa: E402
from protoseg_fast.network.windows import SlidingWindow  # noqa: E402


class Local(nn.Module):
    """Looks at pairs of voxels only: windows that start at even voxels see what a volume shows.

    Layers at the size of the image and at half of it, one that is constant, one in place.
    """

    def __init__(self, rank: int = 2, classes: int = 2) -> None:
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
        self.pool = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[rank - 1](2)
        self.first, self.deep, self.last = conv(1, 4, 1), conv(4, 6, 1), conv(10, classes, 1)
        self.passes = 0

    def forward(self, x):
        self.passes += len(x)
        full = torch.relu_(self.first(x) * 2)
        deep = torch.relu_(self.deep(self.pool(full)))
        up = nn.functional.interpolate(deep, scale_factor=2.0, mode="nearest")
        return self.last(torch.cat([full, up], dim=1)) * 4


def make(rank: int = 2, size: tuple[int, ...] = (40, 28)) -> tuple[Local, Any, Any]:
    torch.manual_seed(0)
    model = Local(rank).eval()
    with torch.no_grad():
        model.first.weight[3] = 0  # constant, before the ReLU and after
    image = torch.rand(2, 1, *size)
    return model, image, torch.rand(2, *size) < image[:, 0]


def same(found: psf.SegmentationAbilityMap, expected: psf.SegmentationAbilityMap) -> None:
    """Equal but for the features' size; a voxel within rounding of a boundary may differ."""
    a, b = found.to_pandas(), expected.to_pandas()
    keys = ["case", "layer", "call", "group", "target", "reference", "actual", "voxels", "channels"]
    pd.testing.assert_frame_equal(a[keys], b[keys])
    for name in ("tp", "predicted"):
        assert (a[name] - b[name]).abs().max() <= 1
    np.testing.assert_allclose(a.sa, b.sa, atol=5e-3)
    assert (a.predicted == b.predicted).mean() > 0.95


# --- geometry -------------------------------------------------------------------------------------


@given(st.data())
def test_every_voxel_belongs_to_one_window_the_most_important(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 3))
    size = [data.draw(st.integers(1, 40 if rank < 3 else 15)) for _ in range(rank)]
    roi = [data.draw(st.integers(1, 24)) for _ in range(rank)]
    overlap = data.draw(st.sampled_from([0, 0.25, 0.5, 0.7]))
    grid = SlidingWindow(roi, overlap, "gaussian").grid(size)
    owner = np.full(grid.padded, -1)
    best = np.full(grid.padded, -1.0)
    centred = [
        -np.abs(np.arange(extent) - (extent - 1) / 2) / extent for extent in grid.roi
    ]  # importance falls with the distance along each axis
    for i, window in enumerate(grid.windows):
        box = owner[window.place][window.own]
        assert (box == -1).all()
        owner[window.place][window.own] = i
        best[window.place] = np.maximum(
            best[window.place], sum(np.exp(x) for x in np.meshgrid(*centred, indexing="ij"))
        )
    assert (owner[grid.inside] >= 0).all()
    outside = owner.copy()
    outside[grid.inside] = -1
    assert (outside == -1).all(), "padding belongs to a window"
    for i, window in enumerate(grid.windows):
        mine = owner[window.place] == i
        importance = sum(np.exp(x) for x in np.meshgrid(*centred, indexing="ij"))
        np.testing.assert_allclose(importance[mine], best[window.place][mine])


@pytest.mark.parametrize("mode", ["constant", "gaussian"])
@pytest.mark.parametrize(
    ("size", "roi", "overlap"),
    [
        ((40, 28), (16, 16), 0.25),
        ((40, 28), (16, -1), 0.5),
        ((41, 30), (17, 9), (0.1, 0.6)),
        ((10, 28), (16, 16), 0.25),  # padded
        ((9, 8), (16, 17), 0.0),
        ((20, 12, 14), (8, 16, 8), 0.3),
    ],
)
def test_the_blended_output_is_monais(size, roi, overlap, mode: str) -> None:
    inferers = pytest.importorskip("monai.inferers")
    conv = nn.Conv2d if len(size) == 2 else nn.Conv3d
    model = nn.Sequential(conv(1, 2, 3, padding=1)).eval()
    image = torch.rand(2, 1, *size)
    inferer = inferers.SlidingWindowInferer(
        roi_size=roi, sw_batch_size=3, overlap=overlap, mode=mode, padding_mode="replicate"
    )
    seen = []

    def activation(logits):
        seen.append(logits.clone())
        return logits.sigmoid()

    sam(model, image, window=inferer, activation=activation, scope="window")
    with torch.no_grad():
        expected = inferer(image, model)
    torch.testing.assert_close(seen[0], expected)


# --- scores ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["constant", "gaussian"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize(
    ("size", "window"),
    [
        ((40,), SlidingWindow(16, 0.5, batch_size=3)),
        ((40, 28), SlidingWindow((16, 12), 0.5, batch_size=3)),
        ((40, 28), SlidingWindow((16, 28), 0.5, batch_size=1)),
        ((20, 12, 16), SlidingWindow(8, 0.5, batch_size=5)),
    ],
)
def test_volume_scope_equals_the_untiled_result(size, window, metric, mode: str) -> None:
    model, image, target = make(len(size), size)
    mask = torch.rand(2, 1, *size) < 0.8
    window = SlidingWindow(window.roi_size, window.overlap, mode, window.batch_size)
    options = {
        "target": target, "mask": mask, "activation": "softmax", "metric": metric,
        "layers": ["input", "convs"],
    }  # fmt: skip
    whole = sam(model, image, **options)
    tiled = sam(model, image, window=window, **options)
    same(tiled, whole)
    assert tiled.dead().values.tolist() == whole.dead().values.tolist()
    if metric == "euclidean":
        assert ["first", 0, 3] in tiled.dead().values.tolist()


def test_every_voxel_is_counted_once_in_both_scopes() -> None:
    model, image, target = make(2, (10, 29))
    mask = torch.rand(2, 1, 10, 29) < 0.5
    for scope, overlap in itertools.product(("volume", "window"), (0, 0.3)):
        window = SlidingWindow((16, 12), overlap, batch_size=2)  # one axis is padded
        options = {"target": target, "mask": mask, "activation": "softmax", "scope": scope}
        frame = sam(model, image, window=window, **options).to_pandas()
        voxels = frame.groupby("case", observed=True).voxels
        assert voxels.nunique().eq(1).all()
        assert voxels.first().tolist() == mask.sum((1, 2, 3)).tolist()
        truth = frame[frame.reference == "target"].groupby("case", observed=True).actual
        assert truth.nunique().eq(1).all()
        assert truth.first().tolist() == (target[:, None] & mask).sum((1, 2, 3)).tolist()


def test_window_scope_is_the_sum_of_windows_scored_apart() -> None:
    model, image, target = make(2, (32, 16))
    whole = sam(model, image, target=target, activation="softmax")
    window = SlidingWindow((16, 16), 0, batch_size=3)
    found = sam(
        model, image, target=target, activation="softmax", window=window, scope="window"
    ).to_pandas()
    halves = [
        sam(model, image[:, :, part], target=target[:, part], activation="softmax").to_pandas()
        for part in (slice(0, 16), slice(16, 32))
    ]
    for name in ("tp", "predicted", "actual", "voxels"):
        np.testing.assert_array_equal(found[name], halves[0][name] + halves[1][name])
    assert (found.predicted != whole.to_pandas().predicted).any()


def test_windows_in_which_nothing_is_predicted_are_background() -> None:
    model, image, target = make(2, (32, 16))

    def activation(logits):
        pred = logits[:, 1:].sigmoid()
        pred[:, :, :16] = 0
        return pred

    options = {"target": target, "activation": activation, "window": SlidingWindow(16, 0)}
    apart = sam(model, image, scope="window", **options).to_pandas()
    assert apart.sa[apart.reference == "target"].notna().all()
    half = sam(
        model, image[:, :, 16:], target=target[:, 16:], activation=lambda x: x[:, 1:].sigmoid()
    ).to_pandas()
    np.testing.assert_array_equal(apart.predicted, half.predicted)
    broken = image.clone()
    broken[0, 0, 3, 3] = float("nan")
    for scope in ("window", "volume"):
        frame = sam(model, broken, scope=scope, **options).to_pandas()
        poisoned = frame[(frame.case == 0) & (frame.layer == "first")]
        assert poisoned.sa[poisoned.group == "layer"].isna().all()
        assert frame.sa[(frame.case == 1) & (frame.reference == "target")].notna().all()


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
@pytest.mark.parametrize("window", [4, 8, 16])
def test_features_that_are_not_finite_where_nothing_counts(odd: float, window: int) -> None:
    """Undefined, as untiled: also where a window has no voxel that counts."""
    model, image, target = make(2, (32, 16))
    mask = torch.ones(2, 1, 32, 16)
    mask[0, :, 8:24, 8:] = 0
    image[0, :, 8:24, 8:] = odd
    options = {"target": target, "mask": mask, "layers": ["input", "first"]}
    options["activation"] = lambda x: x.nan_to_num()[:, 1:].sigmoid()
    whole = sam(model, image, **options).to_pandas()
    for scope in ("volume", "window"):
        apart = SlidingWindow(window, 0)
        frame = sam(model, image, window=apart, scope=scope, **options).to_pandas()
        assert (frame.sa.isna() == whole.sa.isna()).all()
    assert whole.sa.isna().any()
    assert whole.sa.notna().any()


@pytest.mark.parametrize(("scope", "passes"), [("volume", 3), ("window", 2)])
def test_number_of_forward_passes(scope: str, passes: int) -> None:
    model, image, _ = make(2, (32, 16))
    sam(model, image, activation="softmax", window=SlidingWindow(16, 0, batch_size=3), scope=scope)
    assert model.passes == passes * 2 * 2  # windows per image, images


@pytest.mark.parametrize(("scope", "again"), [("volume", 2), ("window", 1)])
@pytest.mark.parametrize("batch", [1, 3])
def test_windows_whose_features_are_kept_run_once(scope: str, again: int, batch: int) -> None:
    model, image, target = make(2, (48, 28))
    options = {"target": target, "activation": "softmax", "layers": "all", "scope": scope}
    options["window"] = SlidingWindow((16, 12), 0.5, batch_size=batch)
    expected = sam(model, image, **options)
    most, least = model.passes, model.passes // (1 + again)
    passes = []
    for budget in (2**30, 2**17, 0):
        model.passes = 0
        found = sam(model, image, keep="auto", memory_budget=budget, **options)
        passes.append(model.passes)
        pd.testing.assert_frame_equal(found.to_pandas(), expected.to_pandas())
        assert all(not hooks and not pre for _, hooks, pre in all_hooks(model))
    assert passes[0] == least < passes[1] < passes[2] == most
    found = sam(model, image, keep="memory", **options)
    pd.testing.assert_frame_equal(found.to_pandas(), expected.to_pandas())
    assert model.passes == most + least
    np.testing.assert_array_equal(found.map("deep", 2, image), expected.map("deep", 2, image))


def test_maps_of_windows() -> None:
    model, image, target = make()
    options = {"target": target, "activation": "softmax"}
    whole = sam(model, image, **options)
    tiled = sam(model, image, window=SlidingWindow((16, 12), 0.5, batch_size=3), **options)
    for layer, unit in (("deep", 2), ("first", "layer")):
        expected, found = whole.map(layer, unit, image), tiled.map(layer, unit, image)
        assert found.shape == expected.shape
        assert (found != expected).sum() <= 1
    with pytest.raises(ValueError, match="below 6"):
        tiled.map("deep", 6, image)
    with pytest.raises(ValueError, match="no call 1"):
        tiled.map("deep", 0, image, call=1)


def test_random_networks_are_refused() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Dropout(0.5), nn.Conv2d(4, 2, 1))
    model[1].train()
    model.training = False
    with pytest.raises(ValueError, match="dropout"):
        sam(model, torch.rand(1, 1, 32, 16), window=16)
    assert all(not hooks and not pre for _, hooks, pre in all_hooks(model))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"window": (16, 16, 16)}, ValueError, "roi_size must be a number or 2"),
        ({"window": "16"}, TypeError, "SlidingWindowInferer"),
        ({"window": SlidingWindow(16, 1.0)}, ValueError, "less than 1"),
        ({"window": SlidingWindow(16, mode="median")}, ValueError, "gaussian"),
        ({"window": SlidingWindow(16, batch_size=0)}, ValueError, "positive"),
        ({"window": SlidingWindow(16, batch_size=1.5)}, TypeError, "batch_size must be a whole"),
        ({"window": (8.5, 8)}, TypeError, "roi_size must be whole"),
        ({"window": True}, TypeError, "SlidingWindowInferer"),
        ({"window": 16, "guide": psf.Guide(torch.rand(1, 1, 8, 8))}, ValueError, "without guide"),
        ({"window": 16, "keep": "memory", "memory_budget": 1}, ValueError, "reached at layer"),
        ({"window": 16, "scope": "patch"}, ValueError, "scope"),
        ({"window": 16, "cases": ["a"]}, ValueError, "names 1 images"),
        ({"window": 16, "cases": ["a", "a"]}, ValueError, "cases must all be different"),
        ({"window": 16, "target": torch.zeros(2, 8, 8)}, ValueError, "label map"),
        ({"window": 16, "groups": ("unit", 2)}, ValueError, "one of the others"),
        ({"window": 16, "layers": "frist"}, ValueError, "first"),
    ],
)
def test_wrong_arguments(options, error, message: str) -> None:
    model, image, _ = make()
    with pytest.raises(error, match=message):
        sam(model, image, activation="softmax", **options)


def test_whole_numbers_of_numpy_are_sizes_and_no_image_is_an_error() -> None:
    model, image, _ = make()
    of_int, of_numpy = (sam(model, image, window=size) for size in (16, np.int64(16)))
    assert of_int.to_pandas().equals(of_numpy.to_pandas())
    with pytest.raises(ValueError, match="image must not be empty"):
        sam(model, image[:0], window=16)


def test_networks_that_change_the_size() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3)).eval()
    with pytest.raises(ValueError, match=r"size of the window \(16, 16\), got \(14, 14\)"):
        sam(model, torch.rand(1, 1, 32, 32), window=16)
