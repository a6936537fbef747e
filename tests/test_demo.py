"""The demo on a short but real run: a network trained on the spot, all of it scored, the page."""

from __future__ import annotations

import io
import math
import re
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
for _name in ("nilearn", "matplotlib", "pandas", "pyarrow", "rich", "jinja2"):
    pytest.importorskip(_name)

import pandas as pd  # noqa: E402
from rich.console import Console  # noqa: E402

from pages import Page  # noqa: E402
from protoseg_fast.demo import DemoConfig, DemoError  # noqa: E402
from protoseg_fast.demo import run as demo_run  # noqa: E402
from protoseg_fast.demo.data import TARGETS, load_slices, split  # noqa: E402
from protoseg_fast.demo.degrade import CLEAN, DEGRADATIONS  # noqa: E402
from protoseg_fast.demo.published import published_sa  # noqa: E402
from protoseg_fast.demo.records import OUTPUT, PREDICTION, TRUTH, WHOLE_LAYER  # noqa: E402
from protoseg_fast.demo.result import DemoResult  # noqa: E402
from protoseg_fast.demo.score import hooked, predict, visit_layers  # noqa: E402
from protoseg_fast.demo.train import train  # noqa: E402
from protoseg_fast.demo.unet import UNet  # noqa: E402
from protoseg_fast.web.svg import outline  # noqa: E402
from protoseg_fast.web.template import signed, two_digits  # noqa: E402

CPU = torch.device("cpu")
NOISY = next(degradation for degradation in DEGRADATIONS if degradation.kind == "noise")


@pytest.fixture(scope="module")
def printed() -> io.StringIO:
    return io.StringIO()


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, printed: io.StringIO) -> DemoResult:
    """Sixty training steps, two held-out slices, two degradations."""
    config = DemoConfig(out=tmp_path_factory.mktemp("demo"), steps=60, held_out=((72, 74),))
    console = Console(file=printed, width=100)
    return demo_run.run_demo(config, degradations=(CLEAN, NOISY), console=console)


@pytest.fixture(scope="module")
def scores(result: DemoResult) -> pd.DataFrame:
    return pd.read_parquet(result.scores)


@pytest.fixture(scope="module")
def html(result: DemoResult) -> str:
    return result.page.read_text(encoding="utf-8")


# --- data -----------------------------------------------------------------------------------------


def test_scan_is_the_mni_brain() -> None:
    slices = load_slices()
    assert slices.image.dtype == torch.float32
    assert 0 <= slices.image.min() < slices.image.max() <= 1
    assert not (slices.target[:, 0] & slices.target[:, 1]).any(), "tissues overlap"
    assert not (slices.target & ~slices.mask).any(), "tissue outside the brain"
    grey, white = slices.target.sum(dim=(0, 2, 3)).tolist()
    assert (grey, white) == (1_079_599, 632_004)  # mm^3, the whole volume: the crop loses nothing


def test_split_keeps_a_gap() -> None:
    training, held_out = split(load_slices(), ((40, 44), (80, 82)), gap=5)
    assert held_out.number.tolist() == [40, 41, 42, 43, 80, 81]
    assert (training.number[:, None] - held_out.number).abs().min() == 6


def test_split_refuses_to_leave_nothing() -> None:
    with pytest.raises(DemoError, match="at least one"):
        split(load_slices(), (), gap=5)
    with pytest.raises(DemoError, match="at least one"):
        split(load_slices(), ((0, 189),), gap=0)


@pytest.mark.parametrize("degradation", DEGRADATIONS, ids=lambda d: d.name)
def test_degradations(degradation) -> None:
    part = load_slices()[slice(72, 74)]
    image = degradation(part.image, part.mask, seed=3)
    assert torch.equal(image, degradation(part.image, part.mask, seed=3))
    assert (image[~part.mask] == 0).all()
    assert torch.equal(image, part.image) == (degradation is CLEAN)


def test_degradations_grow_with_severity() -> None:
    part = load_slices()[slice(72, 74)]
    for kind in {degradation.kind for degradation in DEGRADATIONS}:
        change = [
            float((d(part.image, part.mask, seed=0) - part.image).abs().mean())
            for d in DEGRADATIONS
            if d.kind == kind
        ]
        assert change == sorted(change)


# --- training -------------------------------------------------------------------------------------


def test_training_reduces_the_loss(result: DemoResult) -> None:
    assert len(result.losses) == 60
    assert np.mean(result.losses[-5:]) < 0.7 * np.mean(result.losses[:5])


def test_held_out_dice_beats_calling_everything_the_target(result: DemoResult) -> None:
    for target in TARGETS:
        assert result.summary.dice[target] > result.summary.baseline[target] + 0.02


def test_training_is_seeded_and_leaves_the_random_state_alone() -> None:
    training, _ = split(load_slices(), ((72, 74),), gap=5)
    state = torch.random.get_rng_state()
    runs = [
        train(training, steps=2, seed=seed, device=CPU, on_step=lambda loss: None)[1]
        for seed in (7, 7, 8)
    ]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert runs[0] == runs[1] != runs[2]


# --- scores ---------------------------------------------------------------------------------------


def test_parquet_has_every_row_once(result: DemoResult, scores: pd.DataFrame) -> None:
    assert list(scores.columns) == [
        "slice", "degradation", "layer", "unit", "target", "reference",
        "tp", "predicted", "actual", "voxels", "sa",
    ]  # fmt: skip
    keys = ["slice", "degradation", "layer", "unit", "target", "reference"]
    assert not scores.duplicated(keys).any()
    images = 2 * 2
    for layer in result.sweep.layers:
        rows = scores[scores.layer == layer.name]
        assert set(rows.unit) == {WHOLE_LAYER, *map(str, range(layer.units))}
        assert len(rows) == images * (layer.units + 1) * len(TARGETS) * 2
    assert len(scores[scores.layer == PREDICTION]) == images * len(TARGETS)
    assert [layer.name for layer in result.sweep.layers] == [
        "image", *result.model.blocks, "output",
    ]  # fmt: skip
    assert set(scores.reference) == {TRUTH, OUTPUT}


def test_counts_make_the_score(scores: pd.DataFrame) -> None:
    assert (scores.tp <= scores[["predicted", "actual"]].min(axis=1)).all()
    assert (scores[["predicted", "actual"]].max(axis=1) <= scores.voxels).all()
    np.testing.assert_allclose(scores.sa, 2 * scores.tp / (scores.predicted + scores.actual))


@pytest.mark.parametrize(
    ("degradation", "reference"), [(CLEAN, TRUTH), (NOISY, OUTPUT)], ids=[TRUTH, OUTPUT]
)
def test_scores_equal_the_plain_formula(
    result: DemoResult, scores: pd.DataFrame, degradation, reference: str
) -> None:
    """Layers of every size, some units and the layer as a whole, in float64 and by hand."""
    part = result.held_out
    image = degradation(part.image, part.mask, result.config.seed)
    pred = predict(result.model, image, CPU)
    goal = part.target if reference == TRUTH else pred > 0.5
    rows = scores[(scores.degradation == degradation.name) & (scores.reference == reference)]
    rows = rows.set_index(["layer", "unit", "target", "slice"]).sort_index()

    def visit(name: str, features: torch.Tensor) -> None:
        units = sorted({0, features.shape[1] // 2, features.shape[1] - 1})
        parts = {str(unit): features[:, [unit]] for unit in units} | {WHOLE_LAYER: features}
        for unit, some in parts.items():
            for t, target in enumerate(TARGETS):
                tp, predicted = _plain_counts(some, pred[:, t], goal[:, t], part.mask[:, 0])
                row = rows.loc[(name, unit, target)].loc[part.number.tolist()]
                # A voxel whose margin is within float32 rounding of 0 may fall on either side.
                assert np.abs(row.tp.to_numpy() - tp).max() <= 2, (name, unit, target)
                assert np.abs(row.predicted.to_numpy() - predicted).max() <= 2

    visit_layers(result.model, image, pred, CPU, visit)


def _plain_counts(
    features: torch.Tensor, pred: torch.Tensor, goal: torch.Tensor, mask: torch.Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """(N,) true positives and size of the map of features (N, C, h, w); the rest is (N, H, W)."""
    f = torch.nn.functional.interpolate(features.double(), pred.shape[1:], mode="bilinear")
    distances = []
    for weight in ((1 - pred.double()) * mask, pred.double() * mask):
        prototype = torch.einsum("nchw,nhw->nc", f, weight) / weight.sum((1, 2))[:, None]
        distances.append((f - prototype[:, :, None, None]).square().sum(1))
    segmented = (distances[1] < distances[0]) & mask
    return (segmented & goal).sum((1, 2)).numpy(), segmented.sum((1, 2)).numpy()


def test_prediction_rows_hold_plain_dice(result: DemoResult, scores: pd.DataFrame) -> None:
    part = result.held_out
    segmented = (predict(result.model, part.image, CPU) > 0.5) & part.mask
    rows = scores[(scores.layer == PREDICTION) & (scores.degradation == CLEAN.name)]
    for t, target in enumerate(TARGETS):
        for n, number in enumerate(part.number.tolist()):
            ours, truth = segmented[n, t], part.target[n, t]
            dice = 2 * (ours & truth).sum() / (ours.sum() + truth.sum())
            row = rows[(rows.target == target) & (rows.slice == number)]
            assert row.sa.item() == pytest.approx(float(dice))


def test_mean_sa_averages_the_blocks_against_the_output(
    result: DemoResult, scores: pd.DataFrame
) -> None:
    blocks = scores[
        (scores.reference == OUTPUT)
        & (scores.unit == WHOLE_LAYER)
        & scores.layer.isin(list(result.model.blocks))
    ]
    by_image = blocks.groupby(["slice", "degradation", "target"], observed=True).sa.mean()
    mean_sa = result.sweep.mean_sa.set_index(["slice", "degradation", "target"])
    assert (mean_sa.layers == len(result.model.blocks)).all()
    for key, row in mean_sa.iterrows():
        assert row.mean_sa == pytest.approx(by_image[key])


def test_published_formulation_agrees(result: DemoResult) -> None:
    assert result.published.difference < 1e-3
    assert result.published.units_timed == 2 * 14 + 1 + 2
    assert result.published.extrapolated_s > 0
    features = torch.zeros(1, 1, 4, 4)
    features[..., :2] = 1
    pred = torch.where(features > 0, 0.9, 0.1)
    mask = torch.ones_like(pred)
    assert published_sa(features, pred, features > 0, mask).item() == 1
    assert published_sa(features, pred, features == 0, mask).item() == 0


# --- hooks ----------------------------------------------------------------------------------------


def _hooks(model: UNet) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def test_hooks_are_removed(result: DemoResult) -> None:
    assert _hooks(result.model) == 0


def test_hooks_are_removed_on_exceptions() -> None:
    model = UNet(targets=2, widths=(2, 2)).eval()
    names: list[str] = []

    def fail_at_third(name: str, features: torch.Tensor) -> None:
        names.append(name)
        if len(names) == 3:
            raise RuntimeError("stop here")

    with (
        pytest.raises(RuntimeError, match="stop here"),
        hooked(dict(model.blocks.items()), fail_at_third),
    ):
        model(torch.zeros(1, 1, 8, 8))
    assert names == ["enc1a", "enc1b", "enc2a"]
    assert _hooks(model) == 0
    with hooked(dict(model.blocks.items()), fail_at_third):
        assert _hooks(model) == len(model.blocks)


# --- what people see ------------------------------------------------------------------------------


def test_table_is_printed(result: DemoResult, printed: io.StringIO) -> None:
    text = printed.getvalue()
    for layer in result.sweep.layers:
        assert re.search(rf"\b{layer.name}\b.*\b{layer.size[0]}x{layer.size[1]}\b", text)
    words = " ".join(text.split())  # lines wrap where the figures' widths want it
    assert "x the forward passes" in words
    assert "Extrapolated" in words
    assert max(map(len, text.splitlines())) <= 100


def test_page_is_self_contained(html: str) -> None:
    page = Page(html)
    assert page.loads
    assert [url[:60] for url in page.loads if not url.startswith(("#", "data:"))] == []
    assert "script" not in page.tags
    assert "@import" not in html
    assert re.findall(r"url\((?!#)[^)]*\)", html) == []
    assert len(html) < 6e6


def test_page_references_resolve(html: str) -> None:
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    used = {url[1:] for url in page.loads if url.startswith("#")}
    used |= set(re.findall(r"url\(#([^)]*)\)", html))
    assert used <= set(page.ids)


def test_page_describes_every_figure(result: DemoResult, html: str) -> None:
    page = Page(html)
    assert page.undescribed == []
    pictures = sum(len(p) for layers in result.gallery.units.values() for p in layers.values())
    assert page.tags.count("svg") == 1 + 3 + 6 + pictures  # definitions, slice, charts, units
    text = " ".join(page.text)
    assert not re.search(r"\bnan\b|\binf\b|\{\{|\}\}", text, re.IGNORECASE)


def test_outline_follows_voxel_edges() -> None:
    region = np.zeros((4, 5), bool)
    assert outline(region) == ""
    region[1, 2:4] = True
    path = outline(region)
    assert sorted(re.findall(r"M\d+ \d+[hv]\d+", path)) == ["M2 1h2", "M2 1v1", "M2 2h2", "M4 1v1"]
    region[:] = True
    assert sum(int(length) for length in re.findall(r"[hv](\d+)", outline(region))) == 2 * (4 + 5)


# --- errors ---------------------------------------------------------------------------------------


def test_cuda_without_cuda(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DemoError, match="finds no CUDA device"):
        demo_run.run_demo(DemoConfig(out=tmp_path / "new", device="cuda"))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("inside", ["", "below"])
def test_folder_that_cannot_be_written(tmp_path: Path, inside: str) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DemoError, match=r"Cannot write to .*--out"):
        demo_run.run_demo(DemoConfig(out=tmp_path / "file" / inside))


def test_files_are_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    path.write_text("before")
    with pytest.raises(RuntimeError), demo_run._replacing(path) as temporary:  # noqa: PT012
        temporary.write_text("half a pa")
        raise RuntimeError
    assert path.read_text() == "before"
    with demo_run._replacing(path) as temporary:
        temporary.write_text("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "tpu"}, "device must be one of cpu, cuda"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"seed": 2**63}, "seed must be at least 0 and less than"),
    ],
)
def test_config_is_checked(options: dict, message: str) -> None:
    with pytest.raises(DemoError, match=message):
        DemoConfig(**options)


def test_undefined_correlation_is_told_as_none() -> None:
    assert signed(math.nan) == two_digits(math.nan) == "\u2013"
    assert signed(-0.256) == "\u22120.26"
